// Rules of the trainer that nobody published: each is parts of two published rules, and the composition is all that
// there is to write. docs/experiments/compositions.toml trains them on a GPU.
#pragma once
#include <matopt/muown.hpp>
#include <matopt/normuon.hpp>
#include <matopt/policy/constraint/nuclear_budget.hpp>
#include <matopt/policy/momentum/variance_adaptive.hpp>
#include <matopt/policy/orthogonalizer/block_krylov_polar.hpp>
#include <matopt/policy/orthogonalizer/subspace_polar.hpp>

namespace small_gpt {

// Muown's magnitudes and directions, and steps of the directions whose rank falls as NuMuon's.
using numuown = matopt::muown::with_orthogonalizer<matopt::subspace_polar>::with_constraint<
    matopt::nuclear_budget<matopt::cosine_rank, matopt::weight_normalization<>>>;
using numuown_krylov = numuown::with_orthogonalizer<matopt::block_krylov_polar<>>;

// Muon-VS's momentum, divided by its own deviation before the orthogonalizer; NorMuon's equal rows after it.
using normuon_vs = matopt::normuon::with_momentum<matopt::variance_scaled>;

template <class Book>
void add_compositions_to(Book& book) {
  book.template add<numuown>("numuown").template add<numuown_krylov>("numuown_krylov");
  book.template add<normuon_vs>("normuon_vs");
}

}  // namespace small_gpt
