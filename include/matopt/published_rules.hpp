// Every published rule by name, for programs that choose one at run time.
//
//   rule_registry<eigen_backend> rules;
//   add_published_rules(rules);
//   auto opt = rules.make("normuon", cpu, {{"decay", "0.1"}});
//
// Each rule costs some compile time; the families can be added one by one, in translation units of their own.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "adamuon.hpp"
#include "adamw.hpp"
#include "adapnm.hpp"
#include "angular_muown.hpp"
#include "aurora.hpp"
#include "contra_muon.hpp"
#include "dion.hpp"
#include "dion2.hpp"
#include "engine/rule_registry.hpp"
#include "kl_shampoo.hpp"
#include "kl_soap.hpp"
#include "lion.hpp"
#include "luon.hpp"
#include "mars_adamw.hpp"
#include "mars_lion.hpp"
#include "mars_m.hpp"
#include "mars_shampoo.hpp"
#include "moonlight.hpp"
#include "muon.hpp"
#include "muon2.hpp"
#include "muon_8bit.hpp"
#include "muon_h.hpp"
#include "muon_mvr.hpp"
#include "muon_nsr.hpp"
#include "muon_plus.hpp"
#include "muon_storm.hpp"
#include "muon_vs.hpp"
#include "muown.hpp"
#include "nadamw.hpp"
#include "namo.hpp"
#include "namo_d.hpp"
#include "nordion2.hpp"
#include "normuon.hpp"
#include "normuon_h.hpp"
#include "numuon.hpp"
#include "optax_muon.hpp"
#include "pnm.hpp"
#include "polargrad.hpp"
#include "reg.hpp"
#include "scion.hpp"
#include "soap.hpp"
#include "soap_muon.hpp"
#include "torch_muon.hpp"
#include "turbo_muon.hpp"

namespace MATOPT_NAMESPACE {

// Muon as several projects have it, and AdamW for what is not a hidden matrix.
template <class B, class T>
void add_muon_rules(rule_registry<B, T>& r) {
  r.template add<adamw>("adamw").template add<muon>("muon").template add<torch_muon>("torch_muon");
  r.template add<torch_muon_match_rms>("torch_muon_match_rms").template add<optax_muon>("optax_muon");
  r.template add<optax_muon_rms>("optax_muon_rms").template add<optax_muon_adaptive>("optax_muon_adaptive");
  r.template add<moonlight>("moonlight").template add<luon>("luon").template add<nadamw>("nadamw");
  r.template add<turbo_muon>("turbo_muon").template add<muon_8bit>("muon_8bit");
}
// Muon with a normalizer.
template <class B, class T>
void add_normalized_rules(rule_registry<B, T>& r) {
  r.template add<normuon>("normuon").template add<normuon_paper>("normuon_paper");
  r.template add<normuon_dion>("normuon_dion").template add<normuon_speedrun>("normuon_speedrun");
  r.template add<adamuon>("adamuon").template add<adamuon_paper>("adamuon_paper");
  r.template add<adamuon_megatron>("adamuon_megatron").template add<muon_plus>("muon_plus").template add<reg>("reg");
}
// Rules that look at the gradient's noise or size.
template <class B, class T>
void add_adaptive_rules(rule_registry<B, T>& r) {
  r.template add<muon_nsr>("muon_nsr").template add<muon_nsr_suite_a>("muon_nsr_suite_a");
  r.template add<muon_nsr_suite_b>("muon_nsr_suite_b").template add<muon_vs>("muon_vs");
  r.template add<muon_vs_suite_a>("muon_vs_suite_a").template add<muon_vs_suite_b>("muon_vs_suite_b");
  r.template add<namo>("namo").template add<namo_paper>("namo_paper");
  r.template add<namo_d>("namo_d").template add<namo_d_paper>("namo_d_paper");
  r.template add<muon2>("muon2");
}
// Rules on a corrected gradient.
template <class B, class T>
void add_estimator_rules(rule_registry<B, T>& r) {
  r.template add<mars_adamw>("mars_adamw").template add<mars_adamw_exact>("mars_adamw_exact");
  r.template add<mars_lion>("mars_lion").template add<mars_lion_exact>("mars_lion_exact");
  r.template add<mars_shampoo>("mars_shampoo").template add<mars_shampoo_exact>("mars_shampoo_exact");
  r.template add<mars_m>("mars_m").template add<mars_m_exact>("mars_m_exact");
  r.template add<mars_m_efficient>("mars_m_efficient").template add<muon_mvr1>("muon_mvr1");
  r.template add<muon_mvr2>("muon_mvr2").template add<muon_mvr3>("muon_mvr3");
  r.template add<muon_storm>("muon_storm");
}
// Relatives whose direction is not a Newton-Schulz polar factor of the momentum.
template <class B, class T>
void add_baseline_rules(rule_registry<B, T>& r) {
  r.template add<pnm>("pnm").template add<pnm_l2>("pnm_l2");
  r.template add<adapnm>("adapnm").template add<adapnm_l2>("adapnm_l2");
  r.template add<lion>("lion").template add<dion>("dion");
  r.template add<scion>("scion").template add<scion_sign>("scion_sign").template add<scion_column>("scion_column");
  r.template add<scion_row>("scion_row").template add<scion_vector>("scion_vector");
  r.template add<polargrad>("polargrad").template add<polargrad_qdwh>("polargrad_qdwh");
  r.template add<polargrad_polar_first>("polargrad_polar_first");
  r.template add<aurora>("aurora").template add<contra_muon>("contra_muon");
  r.template add<dion2>("dion2").template add<nordion2>("nordion2");
}
// Rules with a geometry of the update or of the weight.
template <class B, class T>
void add_constrained_rules(rule_registry<B, T>& r) {
  r.template add<numuon>("numuon").template add<numuon_krylov>("numuon_krylov").template add<muown>("muown");
  r.template add<angular_muown>("angular_muown");
  r.template add<muon_h>("muon_h").template add<normuon_h>("normuon_h");
}
// Rules in the eigenbases of Shampoo's factors.
template <class B, class T>
void add_eigenbasis_rules(rule_registry<B, T>& r) {
  r.template add<soap>("soap").template add<soap_muon>("soap_muon").template add<kl_shampoo>("kl_shampoo");
  r.template add<kl_soap>("kl_soap").template add<kl_soap_h>("kl_soap_h");
  r.template add<emerging_kl_soap>("emerging_kl_soap");
}

template <class B, class T>
void add_published_rules(rule_registry<B, T>& r) {
  add_muon_rules(r), add_normalized_rules(r), add_adaptive_rules(r);
  add_estimator_rules(r), add_baseline_rules(r), add_constrained_rules(r);
  add_eigenbasis_rules(r);
}

}  // namespace MATOPT_NAMESPACE
