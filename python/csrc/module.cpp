// The extension under matopt.torch. Everything that Python users see, and its documentation, is in matopt/torch/.
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <matopt/adapters/torch.hpp>
#include <matopt/adapters/torch/orthogonalize.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rules.hpp"

namespace py = pybind11;
using namespace matopt;

at::Tensor orthogonalize_on_gpu(const at::Tensor& x, const newton_schulz<>& by);

namespace {

using texts = std::vector<std::pair<std::string, std::string>>;

const torch_rules& all_rules() {
  static const torch_rules known = [] {
    rule_books books;
    add_muon_rules(books), add_normalized_rules(books), add_adaptive_rules(books);
    add_estimator_rules(books), add_baseline_rules(books), add_constrained_rules(books);
    add_eigenbasis_rules(books);
    torch_rules out;
    out.add(std::move(books.in_float)).add(std::move(books.in_double));
#ifdef MATOPT_PYTHON_CUDA
    add_gpu_rules(out);
#endif
    return out;
  }();
  return known;
}
std::vector<setting> settings_from(const texts& all) {
  std::vector<setting> out;
  for (const auto& [name, value] : all) out.push_back({name, value});
  return out;
}
texts texts_from(const std::vector<setting>& all) {
  texts out;
  for (const setting& s : all) out.emplace_back(s.name, s.value);
  return out;
}
on_nonfinite nonfinite_from(const std::string& name) {
  if (name == "skip") return on_nonfinite::skip_step;
  if (name == "ignore") return on_nonfinite::ignore;
  throw bad_value("nonfinite", '"' + name + '"', "\"skip\" or \"ignore\"");
}
newton_schulz<> newton_schulz_from(const std::string& coefficients, std::optional<int> steps) {
  newton_schulz<> by;
  set_setting(by, "ns_coefficients", coefficients);
  by = newton_schulz<>::preset(by.coefficients);
  if (steps) set_setting(by, "ns_steps", std::to_string(*steps));
  return by;
}
at::Tensor orthogonalize_tensor(const at::Tensor& x, const std::string& coefficients, std::optional<int> steps) {
  const newton_schulz<> by = newton_schulz_from(coefficients, steps);
#ifdef MATOPT_PYTHON_CUDA
  if (x.is_cuda()) return orthogonalize_on_gpu(x, by);
#endif
  if (!x.is_cpu()) throw bad_value("device of the tensor", x.device().str(), "cpu, as the extension was built");
  const auto cpu = torch_device<eigen_backend>::make(x.device());
  return orthogonalized(*cpu, by, x);
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const error& e) {  // wrong input, all of them
      PyErr_SetString(PyExc_ValueError, e.what());
    }
  });
  using release = py::call_guard<py::gil_scoped_release>;

  py::class_<torch_optimizer>(m, "Optimizer")
      .def(py::init([](const std::string& nonfinite) {
        return std::make_unique<torch_optimizer>(all_rules(), nonfinite_from(nonfinite));
      }))
      .def("add_param_group",
           [](torch_optimizer& o, std::vector<at::Tensor> params, std::vector<std::string> names, std::string rule,
              std::optional<double> lr, const texts& settings, bool master_weights, bool stacked, bool confirmed) {
             o.add_param_group({.params = std::move(params),
                                .rule = std::move(rule),
                                .lr = lr,
                                .settings = settings_from(settings),
                                .master_weights = master_weights,
                                .stacked = stacked,
                                .confirmed = confirmed,
                                .names = std::move(names)});
           })
      .def("set", &torch_optimizer::set)
      .def("set_lr", [](torch_optimizer& o, std::size_t group, double lr) { o.groups().at(group).lr = lr; })
      .def("lr", [](const torch_optimizer& o, std::size_t group) { return o.groups().at(group).lr; })
      .def("set_reference", &torch_optimizer::set_reference)
      .def(
          "step", [](torch_optimizer& o) { o.step(); }, release())
      .def("resync", &torch_optimizer::resync)
      .def("poll_status",
           [](torch_optimizer& o) {
             const step_status s = o.poll_status();
             return std::make_pair(s.skipped, s.parameters);
           })
      .def("state", &torch_optimizer::state, release())
      .def("load_state", &torch_optimizer::load_state, release())
      .def("steps", &torch_optimizer::steps);

  m.def("rule_names", [](bool gpu) {
    const auto device = gpu ? at::kCUDA : at::kCPU;
    return all_rules().knows(device, at::kFloat) ? all_rules().of(device, at::kFloat).names()
                                                 : std::vector<std::string>();
  });
  // Of a rule with its defaults: published rate, settings.
  m.def("rule_defaults", [](const std::string& rule) {
    const auto& cpu = all_rules().of(at::kCPU, at::kFloat);
    return std::make_pair(cpu.published_lr(rule), texts_from(cpu.settings(rule)));
  });
  // Of a rule with these: all settings; whether it needs a second gradient, and whether it steps vectors.
  m.def("rule_facts", [](const std::string& rule, const texts& settings) {
    const auto facts = all_rules().of(at::kCPU, at::kFloat).of(rule, settings_from(settings));
    return std::make_tuple(texts_from(facts.settings), facts.needs_reference, facts.steps_vectors);
  });
  m.def("suggest_role", [](const std::string& name, const std::vector<index_t>& shape) {
    return std::string(enum_names(role{})[static_cast<std::size_t>(suggest_role(name, shape))]);
  });
  m.def("orthogonalize", &orthogonalize_tensor, release());
}
