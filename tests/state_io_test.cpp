// Checkpoints of optimizer state, parameter groups and rules by name.
#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/engine/rule_registry.hpp>
#include <matopt/lion.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/policy/schedule/setting.hpp>
#include <matopt/state_io.hpp>

#include "support/matrices.hpp"

using namespace matopt;
namespace fs = std::filesystem;

namespace {

struct folder {  // a fresh folder that goes with the test
  fs::path path = fs::temp_directory_path() / ("matopt-" + std::to_string(std::random_device{}()));
  folder() { fs::create_directories(path); }
  ~folder() { fs::remove_all(path); }
  std::string file(const char* name) const { return (path / name).string(); }
};

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write_bytes(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
std::string with_length(const std::string& header) {
  const std::uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header;
}
std::uint64_t header_length(const std::string& file) {
  std::uint64_t n = 0;
  std::copy_n(file.data(), 8, reinterpret_cast<char*>(&n));
  return n;
}
// The file with another header before the same data, as a program that knows nothing of checksums writes it.
template <class Edit>
void edit_header(const std::string& path, Edit edit) {
  const std::string file = bytes_of(path);
  const auto n = header_length(file);
  auto header = nlohmann::json::parse(file.substr(8, n));
  edit(header);
  write_bytes(path, with_length(header.dump()) + file.substr(8 + n));
}
// As matopt 0.1 wrote it: without checksums, settings and versions.
void make_old(const std::string& path) {
  edit_header(path, [](nlohmann::json& header) {
    auto& metadata = header["__metadata__"];
    for (const auto& [key, unused] : std::map<std::string, std::string>(metadata))
      if (key.starts_with("matopt.") || key.starts_with("optimizer.settings.") || key == "optimizer.format_version")
        metadata.erase(key);
    if (metadata.empty()) header.erase("__metadata__");
  });
}
// Runs `f` in a process of its own and returns its exit status, or -1.
template <class F>
int in_child(F f) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);
    alarm(60);
    int status = 99;
    try {
      status = f();
    } catch (...) {
    }
    _exit(status);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
std::ptrdiff_t files_in(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}
std::string error_of_load(const std::string& path) {
  try {
    tensor_file::load(path);
  } catch (const bad_file& e) {
    return e.what();
  }
  return {};
}

using cpu_optimizer = any_optimizer<eigen_backend>;

rule_registry<eigen_backend> rules() {
  rule_registry<eigen_backend> r;
  r.add<muon>("muon").add<muown>("muown").add<adamw>("adamw");
  return r;
}

// Two hidden matrices (one column-major), an embedding and a vector, with gradients from a seed.
struct problem {
  std::vector<float> w, g;
  eigen_backend cpu{2};
  param_groups<eigen_backend> groups;

  explicit problem(const std::string& rule, index_t width = 6)
      : w(static_cast<std::size_t>(width * 9 + 8 * 4 + 40)),
        g(w.size()),
        groups(rules().make(rule, cpu), 0.02, rules().make("adamw", cpu, {{"beta2", "0.95"}}), 3e-3) {
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(std::sin(static_cast<double>(i) * 1.7));
    const auto a = static_cast<std::size_t>(width * 9);
    groups.add("hidden", row_major(w.data(), 9, width), row_major(g.data(), 9, width), role::hidden,
               {.row_blocks = {3, 6}});
    groups.add("column", col_major(w.data() + a, 8, 4), col_major(g.data() + a, 8, 4), role::hidden,
               {.lr_scale = 0.5, .decay = 0.1});
    groups.add("embedding", row_major(w.data() + a + 32, 7, 5), row_major(g.data() + a + 32, 7, 5), role::embedding);
    groups.add("gain", row_major(w.data() + a + 67, 1, 5), row_major(g.data() + a + 67, 1, 5), role::vector,
               {.decay = 0.0});
    groups.finalize();
  }
  void step(int t) {
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = static_cast<float>(std::cos(static_cast<double>(i * 3) + t));
    groups.step(1.0 / (1 + t));
  }
};

}  // namespace

// The code of docs/checkpoints.md.
namespace {

void save_checkpoint(const std::string& path, const cpu_optimizer& opt, const std::vector<float>& w) {
  tensor_file file;
  tensor_file::tensor& weight = file.tensors["model.w"];
  weight = {element_type::f32, {8, 4}, std::vector<std::byte>(w.size() * sizeof(float))};
  std::memcpy(weight.data.data(), w.data(), weight.data.size());
  file.metadata["run.text"] = "corpus.txt";  // what else the run has to know
  store_state(opt, file);
  file.save(path);
}

std::string load_checkpoint(const std::string& path, cpu_optimizer& opt, std::vector<float>& w) {
  const tensor_file file = tensor_file::load(path);
  const auto weight = file.tensors.find("model.w");
  if (weight == file.tensors.end() || weight->second.shape != std::vector<index_t>{8, 4})
    throw bad_file("\"" + path + "\" is no checkpoint of this model");
  const restore_report report = restore_state(opt, file);  // throws before anything has changed
  std::memcpy(w.data(), weight->second.data.data(), w.size() * sizeof(float));
  return report.note;
}

}  // namespace

TEST_CASE("a checkpoint of a run, as the documents show it", "[state_io]") {
  const folder tmp;
  const std::string path = tmp.file("run");
  eigen_backend cpu(1);
  std::vector<float> w(32, 1), g(32, 0.5F), second_w(32);
  const auto make = [&](std::vector<float>& weight, double momentum) {
    cpu_optimizer opt(cpu, muon{.momentum = {.beta = momentum}});
    opt.add("w", row_major(weight.data(), 8, 4), row_major(g.data(), 8, 4));
    opt.finalize();
    return opt;
  };
  cpu_optimizer opt = make(w, 0.95);
  opt.step(0.1);
  save_state(opt, path);
  const restore_report report = load_state(opt, path);
  if (!report.note.empty()) std::fprintf(stderr, "%s: %s\n", path.c_str(), report.note.c_str());
  CHECK(report.note.empty());
  CHECK(report.everything());

  save_checkpoint(path, opt, w);
  cpu_optimizer second = make(second_w, 0.95), other = make(second_w, 0.9);
  CHECK(load_checkpoint(path, second, second_w).empty());
  opt.step(0.1), second.step(0.1);
  CHECK(w == second_w);

  // The settings of the optimizer at hand stay; only its state is the file's.
  load_state(other, path, {.other_settings = true});
  CHECK(other.steps() == 1);

  // What fits, as far as it goes: the run has gained a layer.
  const restore_report found = load_state(other, path, {.other_settings = true, .partial = true});
  for (const auto& name : found.not_restored) std::fprintf(stderr, "%s begins anew\n", name.c_str());
  CHECK(found.everything());

  atomic_file text(tmp.file("report.txt"));
  text.write("done\n", 5);
  text.commit();
  CHECK(bytes_of(tmp.file("report.txt")) == "done\n");
}

TEST_CASE("saved and loaded state continues bit for bit", "[state_io]") {
  const folder tmp;
  for (const std::string rule : {"muon", "muown", "adamw"}) {
    CAPTURE(rule);
    problem whole(rule), first(rule);
    for (int t = 0; t < 3; ++t) whole.step(t), first.step(t);
    save_state(first.groups, tmp.file("s"));
    problem second(rule);
    std::copy(first.w.begin(), first.w.end(), second.w.begin());
    load_state(second.groups, tmp.file("s"));
    CHECK(second.groups.steps() == 3);
    for (int t = 3; t < 6; ++t) whole.step(t), second.step(t);
    CHECK(whole.w == second.w);
  }
}

TEST_CASE("a master weight is saved and loaded, and goes before the weight", "[state_io]") {
  const folder tmp;
  using rule = muon::with_constraint<master_weights<>>;
  struct small {
    std::vector<bfloat16> w = std::vector<bfloat16>(12), g = std::vector<bfloat16>(12);
    eigen_backend cpu{1};
    optimizer<rule, eigen_backend, types<bfloat16>> opt{cpu, {.constraint = {.rounding = rounding_mode::stochastic}}};
    small() {
      for (std::size_t i = 0; i < w.size(); ++i) w[i] = bfloat16(std::sin(static_cast<float>(i) * 1.7F));
      opt.add("w", col_major(w.data(), 3, 4), row_major<const bfloat16>(g.data(), 3, 4));
      opt.finalize();
    }
    void step(int t) {
      for (std::size_t i = 0; i < g.size(); ++i)
        g[i] = bfloat16(std::cos(static_cast<float>(i * 3) + static_cast<float>(t)));
      opt.step(1e-3);
    }
    std::vector<std::uint16_t> bits() const {
      std::vector<std::uint16_t> out;
      for (const bfloat16 x : w) out.push_back(x.bits);
      return out;
    }
  };
  small whole, first, second;
  for (int t = 0; t < 5; ++t) whole.step(t), first.step(t);
  save_state(first.opt, tmp.file("s"));
  const auto saved = tensor_file::load(tmp.file("s")).tensors.at("optimizer.w.master");
  CHECK(saved.type == element_type::f32);
  CHECK(saved.shape == std::vector<index_t>{3, 4});
  load_state(second.opt, tmp.file("s"));  // and its weight is still the one it began with
  CHECK(whole.bits() != second.bits());
  for (int t = 5; t < 8; ++t) whole.step(t), second.step(t);
  CHECK(whole.bits() == second.bits());
}

TEST_CASE("state in float16 is saved and loaded bit for bit", "[state_io][float16]") {
  const folder tmp;
  struct small {
    std::vector<float16> w = std::vector<float16>(12, float16(0.5F)), g = std::vector<float16>(12);
    eigen_backend cpu{1};
    optimizer<muon, eigen_backend, types<float16, float16, float16>> opt{cpu};
    small() {
      opt.add("w", row_major(w.data(), 3, 4), row_major<const float16>(g.data(), 3, 4));
      opt.finalize();
    }
    void step(int t) {
      for (std::size_t i = 0; i < g.size(); ++i)
        g[i] = float16(std::cos(static_cast<float>(i * 3) + static_cast<float>(t)));
      opt.step(1e-2);
    }
  };
  small whole, second;
  for (int t = 0; t < 3; ++t) whole.step(t);
  save_state(whole.opt, tmp.file("s"));
  const auto saved = tensor_file::load(tmp.file("s")).tensors.at("optimizer.w.momentum");
  CHECK(saved.type == element_type::f16);
  CHECK(saved.data.size() == 24);
  std::copy(whole.w.begin(), whole.w.end(), second.w.begin());
  load_state(second.opt, tmp.file("s"));
  whole.step(3), second.step(3);
  for (std::size_t i = 0; i < 12; ++i) CHECK(whole.w[i].bits == second.w[i].bits);
}

TEST_CASE("state of another rule, shape or parameter is refused and changes nothing", "[state_io]") {
  const folder tmp;
  problem p("muon"), other("muown"), wider("muon", 8);
  p.step(0), other.step(0), wider.step(0);
  save_state(p.groups, tmp.file("p"));
  save_state(other.groups, tmp.file("other"));
  save_state(wider.groups, tmp.file("wider"));
  const auto refused = [&](const char* file, const auto& matcher) {
    CHECK_THROWS_WITH(load_state(p.groups, tmp.file(file)), matcher);
    save_state(p.groups, tmp.file("after"));
    CHECK(tensor_file::load(tmp.file("after")).tensors.at("optimizer.hidden.0.momentum").data ==
          tensor_file::load(tmp.file("p")).tensors.at("optimizer.hidden.0.momentum").data);
  };
  refused("other", Catch::Contains("rule: file rule<nesterov_heavy_ball") &&
                       Catch::Contains("here rule<nesterov_ema") && Catch::Contains("magnitude") &&
                       Catch::Contains("in the file only"));
  refused("wider", Catch::Contains("hidden.0.momentum: file F32 3x8, here F32 3x6"));
  tensor_file missing = tensor_file::load(tmp.file("p"));
  missing.tensors.erase("optimizer.embedding.first_moment");
  missing.save(tmp.file("missing"));
  refused("missing", Catch::Contains("embedding.first_moment: file (none), here F32 7x5"));
}

namespace {

// An optimizer of float, double or 16-bit state with matrices of its own, each of which has had some steps.
template <class T, class State = T, class Rule = adamw>
struct layers {
  struct layer {
    std::string name;
    index_t rows, cols;
  };
  using types_of = types<T, T, State>;
  eigen_backend cpu{1};
  std::vector<std::vector<T>> w, g;
  any_optimizer<eigen_backend, types_of> opt;

  explicit layers(const std::vector<layer>& all, int steps, Rule rule = {}) : opt(cpu, std::move(rule)) {
    w.reserve(all.size()), g.reserve(all.size());
    for (const layer& l : all) {
      const auto size = static_cast<std::size_t>(l.rows * l.cols);
      w.emplace_back(size), g.emplace_back(size);
      for (std::size_t i = 0; i < size; ++i)
        w.back()[i] = static_cast<T>(static_cast<float>(std::sin(static_cast<double>(i) * 1.7)));
      opt.add(l.name, row_major(w.back().data(), l.rows, l.cols), row_major(g.back().data(), l.rows, l.cols));
    }
    opt.finalize();
    for (int t = 0; t < steps; ++t) step(t);
  }
  void step(int t) {
    for (auto& layer : g)
      for (std::size_t i = 0; i < layer.size(); ++i)
        layer[i] = static_cast<T>(static_cast<float>(std::cos(static_cast<double>(i * 3) + t)));
    opt.step(0.01);
  }
  tensor_file saved() const {
    tensor_file file;
    store_state(opt, file);
    return file;
  }
  // The state of a parameter as bytes, one piece after the other.
  std::map<std::string, std::vector<std::byte>> state_of(const std::string& parameter) const {
    std::map<std::string, std::vector<std::byte>> out;
    for (const auto& [name, t] : saved().tensors)
      if (name.starts_with("optimizer." + parameter + ".")) out[name] = t.data;
    return out;
  }
};

using names = std::vector<std::string>;
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const bad_file& e) {
    return e.what();
  }
  return {};
}

const names adam_state = {"first_correction", "first_moment", "second_correction", "second_moment"};
names state_names(const std::string& parameter) {
  names out;
  for (const auto& s : adam_state) out.push_back(parameter + "." + s);
  return out;
}

}  // namespace

TEST_CASE("a partial load takes what fits and reports the rest", "[state_io]") {
  const folder tmp;
  // "old" is called "new" by now, "gone" is missing, "added" is additional, and "wide" has another shape.
  const layers<float> before({{"same", 3, 4}, {"old", 2, 2}, {"gone", 1, 3}, {"wide", 4, 3}}, 3);
  save_state(before.opt, tmp.file("s"));
  layers<float> after({{"same", 3, 4}, {"new", 2, 2}, {"added", 2, 5}, {"wide", 5, 3}}, 1);
  const tensor_file untouched = after.saved();

  const auto refused = error_of([&] { load_state(after.opt, tmp.file("s")); });
  CHECK_THAT(refused, Catch::Contains("new.first_moment: file (none), here F32 2x2"));
  CHECK_THAT(refused, Catch::Contains("added.second_moment: file (none), here F32 2x5"));
  CHECK_THAT(refused, Catch::Contains("wide.first_moment: file F32 4x3, here F32 5x3"));
  CHECK_THAT(refused, Catch::Contains("gone.first_moment: in the file only"));
  CHECK(after.opt.steps() == 1);
  CHECK(after.state_of("same") == layers<float>({{"same", 3, 4}}, 1).state_of("same"));

  const restore_report found = load_state(after.opt, tmp.file("s"), {.partial = true});
  names missing = state_names("added"), unexpected = state_names("gone");
  for (const auto& n : state_names("new")) missing.push_back(n);
  for (const auto& n : state_names("old")) unexpected.push_back(n);
  CHECK(found.missing == missing);
  CHECK(found.unexpected == unexpected);
  REQUIRE(found.other_shape.size() == 2);
  CHECK(found.other_shape[0].name == "wide.first_moment");
  CHECK(found.other_shape[0].file == "F32 4x3");
  CHECK(found.other_shape[0].here == "F32 5x3");
  CHECK(found.other_shape[1].name == "wide.second_moment");
  CHECK(found.converted.empty());
  CHECK(found.not_restored == names{"added", "new", "wide"});
  CHECK_FALSE(found.everything());
  CHECK(found.note.empty());
  CHECK(after.opt.steps() == 3);
  CHECK(after.state_of("same") == before.state_of("same"));
  for (const std::string name :
       {"new", "added", "wide"}) {  // also the corrections of "wide", whose shape has not changed
    CAPTURE(name);
    for (const auto& [key, bytes] : after.state_of(name)) CHECK(bytes == untouched.tensors.at(key).data);
  }

  // Half of the state of a parameter is not loaded.
  tensor_file half = before.saved();
  half.tensors.erase("optimizer.same.second_moment");
  layers<float> whole({{"same", 3, 4}}, 1);
  const auto as_it_was = whole.state_of("same");
  CHECK(restore_state(whole.opt, half, {.partial = true}).not_restored == names{"same"});
  CHECK(whole.state_of("same") == as_it_was);

  // What else a file has to say must agree as ever, and nothing changes otherwise.
  const auto told = [&](auto edit) {
    tensor_file file = before.saved();
    edit(file);
    const auto why = error_of([&] { restore_state(whole.opt, file, {.partial = true}); });
    CHECK(whole.state_of("same") == as_it_was);
    return why;
  };
  CHECK_THAT(told([](auto& f) { f.metadata["optimizer.rule"] = "rule<other>"; }), Catch::Contains("rule: file"));
  CHECK_THAT(told([](auto& f) { f.metadata["optimizer.settings.beta1"] = "0.5"; }), Catch::Contains("setting beta1"));
  CHECK_THAT(told([](auto& f) { f.metadata["optimizer.steps"] = "x"; }), Catch::Contains("steps: file x"));
  CHECK_THAT(told([](auto& f) { f.tensors.at("optimizer.same.first_moment").data.pop_back(); }),
             Catch::Contains("same.first_moment: file 47 bytes, here 48"));

  // A damaged file is refused whatever part of it is asked for.
  std::string bytes = bytes_of(tmp.file("s"));
  bytes[8 + header_length(bytes) + 1] ^= 4;
  write_bytes(tmp.file("damaged"), bytes);
  CHECK_THAT(error_of([&] { load_state(whole.opt, tmp.file("damaged"), {.partial = true}); }),
             Catch::Contains("is damaged"));
  CHECK(whole.state_of("same") == as_it_was);
}

TEST_CASE("a partial load into groups", "[state_io][param_groups]") {
  problem p("muon"), wider("muon", 8);
  for (int t = 0; t < 3; ++t) p.step(t), wider.step(t + 5);
  tensor_file narrow;
  store_state(p.groups, narrow);
  narrow.tensors.erase("optimizer.gain.first_moment");
  const restore_report found = restore_state(wider.groups, narrow, {.partial = true});
  CHECK(found.missing == names{"gain.first_moment"});
  REQUIRE(found.other_shape.size() == 2);
  CHECK(found.other_shape[0].name == "hidden.0.momentum");
  CHECK(found.not_restored == names{"gain", "hidden.0", "hidden.1"});
  tensor_file now;
  store_state(wider.groups, now);
  CHECK(now.tensors.at("optimizer.column.momentum").data == narrow.tensors.at("optimizer.column.momentum").data);
  CHECK(now.tensors.at("optimizer.embedding.second_moment").data ==
        narrow.tensors.at("optimizer.embedding.second_moment").data);
  CHECK(now.tensors.at("optimizer.gain.second_moment").data != narrow.tensors.at("optimizer.gain.second_moment").data);
}

TEST_CASE("groups: their order does not matter, and what has moved to another rule is told",
          "[state_io][param_groups]") {
  eigen_backend cpu(1);
  test::stored<float> w(4, 6), g(4, 6), v(3, 3), gv(3, 3);
  g.fill_random(1), gv.fill_random(2);
  const auto groups = [&](bool turned, const char* of_w) {
    auto made = std::make_unique<param_groups<eigen_backend>>(cpu);
    const auto add = [&](bool first) {
      if (first)
        made->add_group("matrices", muon{}, 0.02);
      else
        made->add_group("signs", lion{}, 0.01);
    };
    add(!turned), add(turned);
    made->add("w", w.v(), g.cv(), of_w), made->add("v", v.v(), gv.cv(), "signs");
    made->finalize();
    return made;
  };
  const folder tmp;
  const std::string path = tmp.file("groups");
  const auto saved = groups(false, "matrices");
  saved->step(), save_state(*saved, path);
  const auto momentum = [](auto& opt, const std::string& name) {
    std::vector<float> x(opt.state_tensors().size() * 24);
    for (const auto& t : opt.state_tensors())
      if (t.name == name + ".momentum")
        x.resize(static_cast<std::size_t>(t.rows * t.cols)), opt.read_state(t, x.data());
    return x;
  };
  const auto turned = groups(true, "matrices");
  CHECK(load_state(*turned, path).everything());
  CHECK(test::same_bits(momentum(*turned, "w"), momentum(*saved, "w")));
  CHECK(turned->steps() == 1);
  // The momentum of both rules has one name and one shape.
  const auto moved = groups(false, "signs");
  const auto before = momentum(*moved, "w");
  CHECK_THROWS_WITH(load_state(*moved, path),
                    Catch::Contains("rule of w: file rule<nesterov_ema") && Catch::Contains("w.momentum"));
  CHECK(test::same_bits(momentum(*moved, "w"), before));
  const restore_report report = load_state(*moved, path, {.partial = true});
  CHECK(report.not_restored == std::vector<std::string>{"w"});
  CHECK(report.missing == std::vector<std::string>{"w.momentum"});
  CHECK(report.unexpected == std::vector<std::string>{"w.momentum"});
  CHECK(test::same_bits(momentum(*moved, "w"), before));
  CHECK(test::same_bits(momentum(*moved, "v"), momentum(*saved, "v")));
  tensor_file edited = tensor_file::load(path);
  for (const char* number : {"2", "-1", "0x", ""}) {
    edited.metadata["optimizer.rule_of.w"] = number;
    CHECK_THROWS_WITH(restore_state(*turned, edited), Catch::Contains("rule of w: file number"));
  }
  edited.metadata.erase("optimizer.rule_of.w");  // as files of version 0.1
  CHECK_NOTHROW(restore_state(*turned, edited));
}

TEST_CASE("a run does not go on beyond the steps that are counted", "[state_io]") {
  eigen_backend cpu(1);
  test::stored<float> w(4, 6), g(4, 6);
  optimizer<muon, eigen_backend> opt(cpu);
  opt.add("w", w.v(), g.cv()), opt.finalize(), opt.set_steps(max_steps - 1);
  opt.step(0.1);
  CHECK(opt.steps() == max_steps);
  CHECK_THROWS_AS(opt.step(0.1), bad_order);
  tensor_file file;
  store_state(opt, file);
  CHECK_NOTHROW(restore_state(opt, file));
}

TEST_CASE("state of other element types is converted where that is asked for", "[state_io]") {
  const layers<double> in_double({{"w", 3, 4}}, 3);
  layers<float> in_float({{"w", 3, 4}}, 0);
  const tensor_file file = in_double.saved();
  CHECK_THAT(error_of([&] { restore_state(in_float.opt, file); }),
             Catch::Contains("w.first_moment: file F64 3x4, here F32 3x4"));
  CHECK(in_float.opt.steps() == 0);
  for (const restore_options o : {restore_options{.convert = true}, restore_options{.partial = true}}) {
    layers<float> other({{"w", 3, 4}}, 0);
    const restore_report found = restore_state(other.opt, file, o);
    CHECK(found.everything());
    REQUIRE(found.converted.size() == 4);
    CHECK(found.converted[1].name == "w.first_moment");
    CHECK(found.converted[1].file == "F64");
    CHECK(found.converted[1].here == "F32");
    const tensor_file now = other.saved();
    for (const auto& [name, t] : file.tensors)
      for (std::size_t i = 0; i < t.data.size() / 8; ++i) {
        double x = 0;
        float y = 0;
        std::memcpy(&x, t.data.data() + 8 * i, 8), std::memcpy(&y, now.tensors.at(name).data.data() + 4 * i, 4);
        CHECK(y == static_cast<float>(x));
      }
  }
  // State of 16 bits goes to float and back; what is computed in float stays float.
  const layers<float, bfloat16> narrow({{"w", 3, 4}}, 3, adamw{.momentum = {.beta2 = 0.95}});
  layers<float> wide({{"w", 3, 4}}, 0, adamw{.momentum = {.beta2 = 0.95}});
  layers<float, float16> half({{"w", 3, 4}}, 0, adamw{.momentum = {.beta2 = 0.95}});
  layers<float, bfloat16> back({{"w", 3, 4}}, 0, adamw{.momentum = {.beta2 = 0.95}});
  CHECK(restore_state(wide.opt, narrow.saved(), {.convert = true}).converted.size() == 2);
  CHECK(restore_state(half.opt, wide.saved(), {.convert = true}).converted.size() == 2);
  CHECK(half.saved().tensors.at("optimizer.w.first_moment").type == element_type::f16);
  CHECK(restore_state(back.opt, half.saved(), {.convert = true}).converted.size() == 2);
  CHECK(back.state_of("w") == narrow.state_of("w"));

  // A number without a finite counterpart is refused by name, and nothing is written.
  tensor_file large = in_double.saved();
  const double huge = 1e300;
  std::memcpy(large.tensors.at("optimizer.w.second_moment").data.data() + 16, &huge, sizeof huge);
  const auto before = in_float.state_of("w");
  CHECK_THAT(error_of([&] { restore_state(in_float.opt, large, {.convert = true}); }),
             Catch::Contains("w.second_moment: 1e+300 in the file is too large for F32"));
  CHECK(in_float.state_of("w") == before);
  CHECK(in_float.opt.steps() == 0);
}

TEST_CASE("stochastic state of 16 bits goes on bit for bit", "[state_io]") {
  using run = layers<float, stochastic<bfloat16>>;
  run whole({{"w", 5, 4}}, 3), resumed({{"w", 5, 4}}, 0);
  const tensor_file file = whole.saved();
  CHECK(file.tensors.at("optimizer.w.first_moment").type == element_type::bf16);
  std::copy(whole.w[0].begin(), whole.w[0].end(), resumed.w[0].begin());
  restore_state(resumed.opt, file);
  for (int t = 3; t < 9; ++t) whole.step(t), resumed.step(t);
  CHECK(whole.w == resumed.w);
  CHECK(whole.state_of("w") == resumed.state_of("w"));
}

namespace {

template <class To, class From>
std::vector<To> converted(const std::vector<From>& x) {
  std::vector<std::byte> bytes(x.size() * sizeof(From));
  std::memcpy(bytes.data(), x.data(), bytes.size());
  const auto c = convert_elements(bytes, element_type_of<From>(), element_type_of<To>());
  CHECK_FALSE(c.out_of_range);
  std::vector<To> out(x.size());
  REQUIRE(c.data.size() == out.size() * sizeof(To));
  std::memcpy(out.data(), c.data.data(), c.data.size());
  return out;
}
template <class To>
std::optional<double> out_of_range(double x) {
  std::vector<std::byte> bytes(sizeof x);
  std::memcpy(bytes.data(), &x, sizeof x);
  return convert_elements(bytes, element_type::f64, element_type_of<To>()).out_of_range;
}

// All numbers of a type of 16 bits survive the way through a wider one; and a number beside the middle of two
// neighbours goes to the nearer one, at the middle to the even one.
template <class T>
void check_roundings() {
  std::vector<T> all(0x10000);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
  const auto in_double = converted<double>(all);
  const auto through_float = converted<T>(converted<float>(all)), through_double = converted<T>(in_double);
  std::vector<double> below, above, middle;
  std::vector<std::size_t> from;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (std::isnan(in_double[i])) {
      CHECK(std::isnan(static_cast<float>(through_double[i])));
      continue;
    }
    if (through_float[i].bits != i || through_double[i].bits != i) FAIL("number " << i);
    if (i + 1 == all.size() || !std::isfinite(in_double[i]) || !std::isfinite(in_double[i + 1])) continue;
    const double half = in_double[i] / 2 + in_double[i + 1] / 2;
    from.push_back(i), middle.push_back(half);
    below.push_back(std::nextafter(half, in_double[i])), above.push_back(std::nextafter(half, in_double[i + 1]));
  }
  REQUIRE(from.size() > 60000);
  const auto low = converted<T>(below), high = converted<T>(above), tie = converted<T>(middle);
  for (std::size_t k = 0; k < from.size(); ++k) {
    const std::size_t i = from[k];
    if (low[k].bits != i || high[k].bits != i + 1 || tie[k].bits != i + i % 2) FAIL("between " << i << " and the next");
  }
}

}  // namespace

TEST_CASE("elements are rounded once and to nearest when they are converted", "[state_io]") {
  check_roundings<bfloat16>();
  check_roundings<float16>();
  CHECK(converted<float>(std::vector<double>{1 + 0x1p-24, 1 + 0x1.8p-23, 0x1p-150, -0x1.8p-149, -0.0}) ==
        std::vector<float>{1, 1 + 0x1p-22F, 0, -0x1p-148F, -0.0F});
  CHECK(std::isinf(converted<float>(std::vector<double>{std::numeric_limits<double>::infinity()})[0]));
  CHECK(out_of_range<float>(1e39) == 1e39);
  CHECK(out_of_range<bfloat16>(-3.4e38) == -3.4e38);
  CHECK(out_of_range<float16>(65520) == 65520);
  CHECK_FALSE(out_of_range<float16>(65519.999));
}

TEST_CASE("tensor files round-trip, and damaged ones are refused", "[state_io]") {
  const folder tmp;
  tensor_file f;
  f.metadata["note"] = "a \"quoted\" text, ünïcode";
  f.tensors["a"] = {element_type::f64, {2, 3}, std::vector<std::byte>(48, std::byte{7})};
  f.tensors["empty"] = {element_type::f32, {0}, {}};
  f.tensors["b"] = {element_type::bf16, {5}, std::vector<std::byte>(10, std::byte{1})};
  f.tensors["c"] = {element_type::f16, {3, 1}, std::vector<std::byte>(6, std::byte{2})};
  f.save(tmp.file("f"));
  const tensor_file back = tensor_file::load(tmp.file("f"));
  CHECK(back.metadata == f.metadata);
  CHECK(back.tensors.size() == 4);
  CHECK(back.tensors.at("a").data == f.tensors["a"].data);
  CHECK(back.tensors.at("a").shape == std::vector<index_t>{2, 3});
  CHECK(back.tensors.at("b").type == element_type::bf16);
  CHECK(back.tensors.at("c").type == element_type::f16);
  CHECK(back.tensors.at("c").data == f.tensors["c"].data);

  const auto size = fs::file_size(tmp.path / "f");
  for (const std::uintmax_t cut : {std::uintmax_t{0}, std::uintmax_t{5}, std::uintmax_t{40}, size - 1}) {
    fs::copy_file(tmp.path / "f", tmp.path / "cut", fs::copy_options::overwrite_existing);
    fs::resize_file(tmp.path / "cut", cut);
    CAPTURE(cut);
    CHECK_THROWS_AS(tensor_file::load(tmp.file("cut")), bad_file);
  }
  const auto damaged = [&](const std::string& header) {
    std::ofstream out(tmp.file("d"), std::ios::binary);
    const std::uint64_t n = header.size();
    out.write(reinterpret_cast<const char*>(&n), 8);
    out << header << "12345678";
    out.close();
    CHECK_THROWS_AS(tensor_file::load(tmp.file("d")), bad_file);
  };
  damaged("no json");
  damaged("[]");
  damaged(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}})");
  damaged(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})");
  damaged(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})");
  damaged(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})");
  damaged(R"({"a":{"dtype":"I16","shape":[8],"data_offsets":[0,8]}})");
  damaged(R"({"a":{"shape":[8]}})");
  CHECK_THROWS_WITH(tensor_file::load(tmp.file("absent")), Catch::Contains("absent"));
}

TEST_CASE("crc32c", "[state_io]") {
  CHECK(crc32c("123456789", 9) == 0xE3069283U);  // the published check value
  const std::vector<unsigned char> zeros(32, 0), ones(32, 0xFF);
  CHECK(crc32c(zeros.data(), 32) == 0x8A9136AAU);  // RFC 3720, B.4
  CHECK(crc32c(ones.data(), 32) == 0x62A8AB43U);
  CHECK(crc32c("6789", 4, crc32c("12345", 5)) == 0xE3069283U);
  CHECK(crc32c(nullptr, 0) == 0);
}

TEST_CASE("every bit of a file that is flipped is noticed", "[state_io]") {
  const folder tmp;
  tensor_file f;
  f.metadata["note"] = "text";
  for (const auto& [name, type, bytes] :
       {std::tuple{"a", element_type::f64, 48}, std::tuple{"b", element_type::bf16, 12},
        std::tuple{"c", element_type::f32, 24}}) {
    f.tensors[name] = {type,
                       {bytes / static_cast<index_t>(size_of(type)) / 2, 2},
                       std::vector<std::byte>(static_cast<std::size_t>(bytes))};
    for (std::size_t i = 0; auto& x : f.tensors[name].data) x = static_cast<std::byte>(i++ * 37 + 11);
  }
  f.tensors["empty"] = {element_type::f32, {0, 7}, {}};
  f.save(tmp.file("f"));
  const std::string whole = bytes_of(tmp.file("f"));
  const std::size_t data = 8 + header_length(whole);
  CHECK(tensor_file::load(tmp.file("f")).note.empty());
  int accepted = 0;
  for (std::size_t i = 0; i < whole.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = whole;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      write_bytes(tmp.file("flipped"), flipped);
      const std::string told = error_of_load(tmp.file("flipped"));
      accepted += told.empty();
      if (i < data) continue;
      const std::string name = i < data + 48 ? "a" : i < data + 60 ? "b" : "c";
      if (told.find("tensor \"" + name + "\" is damaged") == std::string::npos) FAIL(name << ": " << told);
    }
  CHECK(accepted == 0);
}

TEST_CASE("metadata that was edited is refused by name", "[state_io]") {
  const folder tmp;
  tensor_file f;
  f.metadata["seed"] = "5";
  f.tensors["w"] = {element_type::f32, {1, 1}, std::vector<std::byte>(4)};
  const auto edited = [&](auto edit) {
    f.save(tmp.file("f"));
    edit_header(tmp.file("f"), edit);
    return error_of_load(tmp.file("f"));
  };
  using nlohmann::json;
  CHECK_THAT(edited([](json& h) { h["__metadata__"]["seed"] = "6"; }), Catch::Contains("metadata \"seed\" is damaged"));
  CHECK_THAT(edited([](json& h) { h["__metadata__"]["format_version"] = "2"; }),
             Catch::Contains("metadata \"format_version\" has no checksum"));
  CHECK_THAT(edited([](json& h) { h["__metadata__"].erase("seed"); }), Catch::Contains("metadata \"seed\" is missing"));
  CHECK_THAT(edited([](json& h) { h["v"] = h["w"], h.erase("w"); }), Catch::Contains("tensor \"v\" has no checksum"));
  CHECK_THAT(edited([](json& h) { h["w"]["shape"] = {1, 1, 1}; }), Catch::Contains("tensor \"w\" is damaged"));
  CHECK_THAT(edited([](json& h) { h["__metadata__"]["matopt.format_version"] = "2"; }),
             Catch::Contains("matopt.format_version is \"2\"; legal: 1"));
  CHECK_THAT(edited([](json& h) { h["__metadata__"].erase("matopt.format_version"); }),
             Catch::Contains("no \"matopt.format_version\""));
  CHECK_THAT(edited([](json& h) { h["__metadata__"].erase("matopt.crc32c"); }), Catch::Contains("\"matopt.crc32c\""));
  for (const char* table : {"", "[]", "{\"metadata\":{}}", "{\"metadata\":{},\"tensors\":{\"w\":5}}"})
    CHECK_THAT(edited([&](json& h) { h["__metadata__"]["matopt.crc32c"] = table; }), Catch::Contains("malformed"));

  // Without any checksum the file is another program's: taken, with a note.
  f.save(tmp.file("f"));
  make_old(tmp.file("f"));
  const tensor_file old = tensor_file::load(tmp.file("f"));
  CHECK(old.metadata == f.metadata);
  CHECK(old.tensors.at("w").data == f.tensors.at("w").data);
  CHECK_THAT(old.note, Catch::Contains("no checksums"));
}

TEST_CASE("what a checkpoint says of a run is compared by name", "[state_io]") {
  const folder tmp;
  problem p("muon");
  p.step(0), p.step(1);
  tensor_file whole;
  store_state(p.groups, whole);
  CHECK(whole.metadata.at("optimizer.settings.matrix.momentum") == "0.95");
  CHECK(whole.metadata.at("optimizer.settings.rest.beta2") == "0.95");
  const auto refused = [&](auto edit) {
    tensor_file file = whole;
    edit(file);
    std::string told;
    try {
      restore_state(p.groups, file);
    } catch (const bad_file& e) {
      told = e.what();
    }
    CHECK(p.groups.steps() == 2);
    return told;
  };
  const auto with = [&](const char* key, const std::string& value) {
    return refused([&](tensor_file& f) { f.metadata[key] = value; });
  };
  for (const char* steps : {"2p", "-3", "1099511627776", "4294967295", "05", "+5", " 5", "5 ", "5.0", "5e0", "", "0x5",
                            "99999999999999999999"})
    CHECK_THAT(with("optimizer.steps", steps), Catch::Contains(std::string("steps: file ") + steps + ", legal: "));
  CHECK_THAT(refused([](tensor_file& f) { f.metadata.erase("optimizer.steps"); }),
             Catch::Contains("steps: file (none)"));
  CHECK(with("optimizer.steps", "2").empty());
  CHECK_THAT(with("optimizer.format_version", "2"), Catch::Contains("format version: file 2, legal: 1"));
  CHECK_THAT(with("optimizer.format_version", ""), Catch::Contains("format version"));
  CHECK_THAT(refused([](tensor_file& f) { f.metadata.erase("optimizer.format_version"); }),
             Catch::Contains("format version: file (none)"));
  CHECK_THAT(with("optimizer.settings.matrix.momentum", "0.9"),
             Catch::Contains("setting matrix.momentum: file 0.9, here 0.95"));
  CHECK_THAT(refused([](tensor_file& f) { f.metadata.erase("optimizer.settings.rest.beta2"); }),
             Catch::Contains("setting rest.beta2: file (none), which stands for the default, 0.999, here 0.95"));
  CHECK_THAT(with("optimizer.settings.matrix.novel", "1"),
             Catch::Contains("setting matrix.novel: file 1, here (none)"));
  CHECK_THAT(refused([](tensor_file& f) { f.tensors.at("optimizer.column.momentum").data.pop_back(); }),
             Catch::Contains("column.momentum: file 127 bytes, here 128"));
  CHECK_THROWS_WITH(p.groups.set_steps(index_t{1} << 32),
                    Catch::Contains("steps is 4294967296; legal: 0 to 4294967294"));

  // The same structure with other settings: another rule in fact. On purpose it can be had.
  eigen_backend cpu(1);
  float w[4] = {1, 2, 3, 4}, g[4] = {1, 1, 2, 5};
  const auto make = [&](double momentum) {
    cpu_optimizer opt(cpu, muon{.momentum = {.beta = momentum}});
    opt.add("w", row_major(w, 2, 2), row_major(g, 2, 2));
    opt.finalize();
    return opt;
  };
  cpu_optimizer slow = make(0.95), quick = make(0.5);
  slow.step(0.1);
  save_state(slow, tmp.file("slow"));
  CHECK_THROWS_WITH(load_state(quick, tmp.file("slow")), Catch::Contains("setting momentum: file 0.95, here 0.5"));
  CHECK(quick.steps() == 0);
  CHECK(load_state(quick, tmp.file("slow"), {.other_settings = true}).note.empty());
  CHECK(quick.steps() == 1);
  CHECK(quick.settings().front().value == make(0.5).settings().front().value);

  // A file of 0.1 has none of these; it says so.
  make_old(tmp.file("slow"));
  const std::string note = load_state(slow, tmp.file("slow")).note;
  CHECK_THAT(note, Catch::Contains("no checksums") && Catch::Contains("no settings"));

  // Nothing stays of what a file held before.
  save_state(slow, tmp.file("only"));
  tensor_file reused = whole;
  reused.metadata["mine"] = "kept";
  store_state(slow, reused);
  const tensor_file only = tensor_file::load(tmp.file("only"));
  CHECK(reused.tensors.size() == only.tensors.size());
  CHECK(reused.metadata.size() == only.metadata.size() + 1);
}

TEST_CASE("a checkpoint that is older than a setting loads where the setting has its default", "[state_io]") {
  eigen_backend cpu(1);
  float w[4] = {1, 2, 3, 4}, g[4] = {1, 1, 2, 5};
  const auto make = [&](muon rule) {
    cpu_optimizer opt(cpu, rule);
    opt.add("w", row_major(w, 2, 2), row_major(g, 2, 2));
    opt.finalize();
    opt.step(0.1);
    return opt;
  };
  const auto opt = make({});
  tensor_file whole;
  store_state(opt, whole);
  for (const setting& s : opt.settings()) {
    INFO(s.name);
    tensor_file older = whole;
    older.metadata.erase("optimizer.settings." + s.name);
    cpu_optimizer fresh = make({});
    const restore_report report = restore_state(fresh, older);
    CHECK_THAT(report.note, Catch::Contains(s.name + " (the default, " + s.value + ")"));
    CHECK(report.everything());
  }
  tensor_file older = whole;
  older.metadata.erase("optimizer.settings.momentum"), older.metadata.erase("optimizer.settings.ns_eps");
  cpu_optimizer other = make({.momentum = {.beta = 0.5}});
  CHECK_THROWS_WITH(restore_state(other, older),
                    Catch::Contains("setting momentum: file (none), which stands for the default, 0.95, here 0.5") &&
                        !Catch::Contains("ns_eps"));
  CHECK(restore_state(other, older, {.other_settings = true}).note.empty());

  // A run that had a schedule of the setting is not an older one.
  cpu_optimizer scheduled = make({});
  scheduled.schedule("momentum", linear(0.85, 0.95, 300));
  tensor_file with_schedule;
  store_state(scheduled, with_schedule);
  CHECK(restore_state(scheduled, with_schedule).note.empty());
  cpu_optimizer without = make({});
  CHECK_THROWS_WITH(
      restore_state(without, with_schedule),
      Catch::Contains("setting momentum: file a schedule (0.95 when it was saved), here 0.95 without one; "
                      "give it that schedule before loading"));
  CHECK(restore_state(without, with_schedule, {.other_settings = true}).everything());
  tensor_file plain;
  store_state(without, plain);
  CHECK_THROWS_WITH(
      restore_state(scheduled, plain),
      Catch::Contains(
          "setting momentum: file 0.95 without a schedule, here a schedule; give it that value with set()"));
}

TEST_CASE("names of parameters go round through a file", "[state_io]") {
  const folder tmp;
  eigen_backend cpu(1);
  std::vector<float> w(40, 1), g(40, 1);
  const std::vector<std::string> names = {
      "", std::string("a\0b", 3), "\n\t\"\\", "__metadata__", "../x", "\x7f", "ünï", "\U0001F600"};
  const auto make = [&] {
    cpu_optimizer opt(cpu, adamw{});
    for (std::size_t i = 0; i < names.size(); ++i)
      opt.add(names[i], row_major(w.data() + 4 * i, 1, 4), row_major(g.data() + 4 * i, 1, 4));
    opt.finalize();
    return opt;
  };
  cpu_optimizer a = make(), b = make();
  for (std::size_t i = 0; i < g.size(); ++i) g[i] = static_cast<float>(i);
  a.step(0.1);
  save_state(a, tmp.file("s"));
  CHECK(load_state(b, tmp.file("s")).note.empty());
  save_state(b, tmp.file("t"));
  CHECK(bytes_of(tmp.file("s")) == bytes_of(tmp.file("t")));
  CHECK(tensor_file::load(tmp.file("s")).tensors.size() == a.state_tensors().size());

  // A tensor_file of the caller's own takes the same names, and refuses what it could not read back.
  const auto refused = [&](auto edit) {
    tensor_file f;
    edit(f);
    std::string told;
    try {
      f.save(tmp.file("f"));
    } catch (const bad_file& e) {
      told = e.what();
    }
    CHECK_FALSE(fs::exists(tmp.file("f")));
    return told;
  };
  const tensor_file::tensor four{element_type::f32, {1, 4}, std::vector<std::byte>(16)};
  CHECK_THAT(refused([&](auto& f) { f.tensors["caf\xe9"] = four; }), Catch::Contains("\"caf\\xe9\" is not UTF-8"));
  CHECK_THAT(refused([&](auto& f) { f.tensors["__metadata__"] = four; }), Catch::Contains("__metadata__"));
  CHECK_THAT(refused([&](auto& f) { f.metadata["\xff"] = ""; }), Catch::Contains("\\xff"));
  CHECK_THAT(refused([&](auto& f) { f.metadata["path"] = "\xff"; }), Catch::Contains("metadata path"));
  CHECK_THAT(refused([&](auto& f) { f.metadata["matopt.crc32c"] = "{}"; }), Catch::Contains("matopt.crc32c"));
  for (const std::vector<index_t>& shape : {std::vector<index_t>{1, 5}, {-1, -4}, {index_t{1} << 62, 16}, {}})
    CHECK_THAT(refused([&](auto& f) { f.tensors["w"] = four, f.tensors["w"].shape = shape; }),
               Catch::Contains("\"w\" has 16 bytes"));
}

TEST_CASE("tensor files that safetensors does not allow are refused", "[state_io]") {
  const folder tmp;
  const auto told = [&](const std::string& header, std::size_t bytes) {
    write_bytes(tmp.file("f"), with_length(header) + std::string(bytes, '\1'));
    return error_of_load(tmp.file("f"));
  };
  const auto one = [](const std::string& name, const std::string& shape, const std::string& offsets) {
    return "\"" + name + R"(":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
  };
  const std::string a = one("a", "[2]", "[0,8]");
  CHECK(told("{" + a + "}", 8).empty());
  CHECK(told("{" + a + "}  \n", 8).empty());
  CHECK(told("{}", 0).empty());
  CHECK(told("{" + one("z", "[]", "[0,4]") + "," + one("a", "[1]", "[4,8]") + "," + one("e", "[0]", "[4,4]") + "}", 8)
            .empty());
  CHECK(told(R"({"__metadata__":{"k":"v"},)" + a + "}", 8).empty());

  CHECK_THAT(told("{" + a + "," + a + "}", 8), Catch::Contains("\"a\" occurs twice"));
  CHECK_THAT(told("{" + a + R"(,"__metadata__":{},"__metadata__":{}})", 8),
             Catch::Contains("\"__metadata__\" occurs twice"));
  CHECK_THAT(told(R"({"__metadata__":{"k":"v","k":"w"},)" + a + "}", 8), Catch::Contains("key twice"));
  CHECK_THAT(told(R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", 8),
             Catch::Contains("key twice"));
  CHECK_THAT(told("{" + a + "," + one("b", "[2]", "[4,12]") + "}", 12), Catch::Contains("\"b\" overlaps"));
  CHECK_THAT(told("{" + a + "," + one("b", "[2]", "[0,8]") + "}", 8), Catch::Contains("overlaps"));
  CHECK_THAT(told("{" + a + "," + one("b", "[2]", "[12,20]") + "}", 20), Catch::Contains("hole before it"));
  CHECK_THAT(told("{" + one("a", "[2]", "[4,12]") + "}", 12), Catch::Contains("hole"));
  CHECK_THAT(told("{" + a + "}", 9), Catch::Contains("8 bytes in 9"));
  CHECK_THAT(told("{" + a + "}", 7), Catch::Contains("cut off"));
  CHECK_THAT(told("{}", 1), Catch::Contains("0 bytes in 1"));
  for (const char* shape :
       {"[2.0]", "[2.5]", "[2e0]", "[-2]", "[-0]", "[\"2\"]", "[true]", "[null]", "[[2]]", "2", "{}", "null",
        "[9223372036854775807]", "[9223372036854775808]", "[18446744073709551616]", "[1e400]",
        "[4611686018427387904,2]", "[4294967296,4294967296]", "[9223372036854775806,9223372036854775806]"})
    CHECK_THAT(told("{" + one("a", shape, "[0,8]") + "}", 8),
               Catch::Contains("shape") || Catch::Contains("number too large"));
  for (const char* offsets : {"[0,8,8]", "[0]", "[]", "[8,0]", "[0,9]", "[0.0,8]", "[0,8.0]", "[-0,8]", "[-8,0]", "8",
                              "{}", "[0,\"8\"]", "[0,18446744073709551615]", "[18446744073709551608,0]"})
    CHECK_THAT(told("{" + one("a", "[2]", offsets) + "}", 8), Catch::Contains("offsets"));
  CHECK_THAT(told("\xEF\xBB\xBF{" + a + "}", 8), Catch::Contains("does not begin with {"));
  CHECK_THAT(told(" {" + a + "}", 8), Catch::Contains("does not begin with {"));
  CHECK_THAT(told("", 0), Catch::Contains("does not begin with {"));
  CHECK_THAT(told("{" + a + "}" + std::string(4, '\0'), 8), Catch::Contains("null character"));
  CHECK_THAT(told("{" + a + "}}", 8), Catch::Contains("not JSON at byte"));
  CHECK_THAT(told("{" + one("\xff", "[2]", "[0,8]") + "}", 8), Catch::Contains("not JSON"));
  CHECK_THAT(told("{" + a + ",}", 8), Catch::Contains("not JSON"));
  CHECK_THAT(told("{/**/" + a + "}", 8), Catch::Contains("not JSON"));
  for (const char* entry : {"5", "\"text\"", "null", "[]", "{}", "[\"F32\",[2],[0,8]]",
                            "{\"dtype\":5,\"shape\":[2],\"data_offsets\":[0,8]}"})
    CHECK_THAT(told(std::string("{\"a\":") + entry + "}", 8), Catch::Contains("\"a\" is malformed"));
  CHECK_THAT(told(R"({"a":{"dtype":"I16","shape":[8],"data_offsets":[0,8]}})", 8),
             Catch::Contains("\"I16\"; legal: F32, F64, BF16, F16, I8, U8, F8_E4M3"));
  CHECK_THAT(told(R"({"__metadata__":{"k":5}})", 0), Catch::Contains("metadata \"k\" is not text"));
  CHECK_THAT(told(R"({"__metadata__":[]})", 0), Catch::Contains("__metadata__"));
  CHECK_THAT(told("{\"a\":" + std::string(100000, '['), 0), Catch::Contains("nested too deeply"));

  // Lengths of a header that are not there, or absurd.
  write_bytes(tmp.file("f"), std::string(8, '\xff') + "{}");
  CHECK_THAT(error_of_load(tmp.file("f")), Catch::Contains("18446744073709551615"));
  write_bytes(tmp.file("f"), with_length(std::string(100'000'001, ' ')));
  CHECK_THAT(error_of_load(tmp.file("f")), Catch::Contains("up to 100000000"));
  fs::remove(tmp.file("f"));

  // Many tensors on the same bytes would take six hundred times the file's memory; refused before any of them is read.
  std::string many = "{";
  for (int i = 0; i < 600; ++i) many += (i ? "," : "") + one("t" + std::to_string(i), "[524288]", "[0,2097152]");
  CHECK_THAT(told(many + "}", 2097152), Catch::Contains("overlaps"));
}

TEST_CASE("only regular files are read", "[state_io]") {
  const folder tmp;
  REQUIRE(mkfifo(tmp.file("pipe").c_str(), 0600) == 0);
  CHECK_THAT(error_of_load(tmp.file("pipe")), Catch::Contains("it is a pipe"));  // and not waited for
  CHECK_THAT(error_of_load(tmp.path.string()), Catch::Contains("it is a folder"));
  CHECK_THAT(error_of_load("/dev/zero"), Catch::Contains("\"/dev/zero\": it is a device"));
  CHECK_THAT(error_of_load(tmp.file("absent")), Catch::Contains("absent\": No such file"));
  CHECK_THAT(error_of_load(std::string("f\0g", 3)), Catch::Contains("null character"));
  CHECK_THAT(error_of_load(""), Catch::Contains("\"\""));
}

TEST_CASE("a failed write leaves the old file", "[state_io]") {
  const folder tmp;
  tensor_file f;
  f.metadata["v"] = "1";
  f.save(tmp.file("f"));
  const std::string before = bytes_of(tmp.file("f"));
  f.metadata["v"] = "2";
  const auto told = [&](const std::string& path) {
    try {
      f.save(path);
    } catch (const bad_file& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  fs::create_directory(tmp.path / "target");
  REQUIRE(mkfifo(tmp.file("pipe").c_str(), 0600) == 0);
  fs::create_symlink("loop", tmp.path / "loop");
  CHECK_THAT(told(tmp.file("no/such/folder")), Catch::Contains("no/such/folder\": No such file or directory"));
  CHECK_THAT(told(tmp.file("f/g")), Catch::Contains("f/g\": Not a directory"));
  CHECK_THAT(told(tmp.file("target")), Catch::Contains("target\": it is a folder"));
  CHECK_THAT(told(tmp.file("pipe")), Catch::Contains("pipe\": it is a pipe"));
  CHECK_THAT(told(tmp.file("loop")), Catch::Contains("loop\": Too many levels of symbolic links"));
  CHECK_THAT(told("/dev/full"), Catch::Contains("/dev/full\": it is a device"));
  CHECK_THAT(told(std::string("f\0g", 3)), Catch::Contains("null character"));
  CHECK_THAT(told(tmp.file(std::string(256, 'n').c_str())), Catch::Contains("File name too long"));
  CHECK(files_in(tmp.path) == 4);  // no temporary file is left

  // A disk that takes no more than some bytes of a file.
  f.tensors["w"] = {element_type::f32, {1, 5000}, std::vector<std::byte>(20000)};
  CHECK(in_child([&] {
          std::signal(SIGXFSZ, SIG_IGN);
          const rlimit most{10000, 10000};
          if (setrlimit(RLIMIT_FSIZE, &most) != 0) return 2;
          const std::string why = told(tmp.file("f"));
          return why.find("cannot write \"" + tmp.file("f") + "\": File too large") == std::string::npos ? 1 : 0;
        }) == 0);
  CHECK(files_in(tmp.path) == 4);

  // A folder or a file that may not be written; root may write everything, so somebody else tries.
  const auto as_somebody = [&](const char* words) {
    return in_child([&] {
      if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) return 2;
      return told(tmp.file("f")).find(words) == std::string::npos ? 1 : 0;
    });
  };
  fs::permissions(tmp.path,
                  fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read | fs::perms::others_exec);
  fs::permissions(tmp.path / "f", fs::perms(0666));
  CHECK(as_somebody("cannot write") == 0);
  fs::permissions(tmp.path, fs::perms(0777));
  fs::permissions(tmp.path / "f", fs::perms(0444));
  CHECK(as_somebody("cannot replace") == 0);
  CHECK(files_in(tmp.path) == 4);
  CHECK(bytes_of(tmp.file("f")) == before);
}

TEST_CASE("a replaced file keeps its mode and its links", "[state_io]") {
  const folder tmp;
  const mode_t mask = umask(0027);
  tensor_file f;
  f.save(tmp.file("fresh"));
  umask(mask);
  const auto mode = [](const std::string& path) {
    struct stat s {};
    REQUIRE(lstat(path.c_str(), &s) == 0);
    return s.st_mode & 07777;
  };
  CHECK(mode(tmp.file("fresh")) == 0640);
  for (const mode_t m : {0600U, 0644U, 0660U, 0777U}) {
    REQUIRE(chmod(tmp.file("fresh").c_str(), m) == 0);
    f.metadata["mode"] = std::to_string(m);
    f.save(tmp.file("fresh"));
    CHECK(mode(tmp.file("fresh")) == m);
  }

  fs::create_directory(tmp.path / "elsewhere");
  fs::rename(tmp.path / "fresh", tmp.path / "elsewhere/real");
  fs::create_symlink("elsewhere/real", tmp.path / "one");
  fs::create_symlink("one", tmp.path / "two");
  fs::create_symlink(tmp.path / "elsewhere/new", tmp.path / "dangling");
  f.metadata["v"] = "through the links";
  f.save(tmp.file("two"));
  f.save(tmp.file("dangling"));
  CHECK(fs::is_symlink(tmp.path / "one"));
  CHECK(fs::is_symlink(tmp.path / "two"));
  CHECK(fs::is_symlink(tmp.path / "dangling"));
  CHECK(tensor_file::load(tmp.file("elsewhere/real")).metadata == f.metadata);
  CHECK(tensor_file::load(tmp.file("elsewhere/new")).metadata == f.metadata);
  CHECK(mode(tmp.file("elsewhere/real")) == 0777);
  CHECK(files_in(tmp.path / "elsewhere") == 2);
  CHECK(files_in(tmp.path) == 4);
}

TEST_CASE("temporary files never meet, and those of killed runs go", "[state_io]") {
  const folder tmp;
  const std::string name = tmp.file("f"), text(3000, 'x');
  tensor_file f;
  f.metadata["v"] = text;
  f.save(name);
  // Files of others, with names like a temporary one's.
  for (const char* other :
       {"f.tmp.1234", "f.tmp.0123456789abcdeg", "f.tmp.0123456789abcdef0", "g.tmp.0123456789abcdef"})
    write_bytes(tmp.file(other), "mine");
  fs::create_directory(tmp.path / "f.tmp.0123456789abcde0");

  // One that is being written stays; when its process is killed it goes.
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    atomic_file out(name);
    out.write("half", 4);
    if (write(ready[1], "x", 1) == 1)
      for (;;) pause();
    _exit(1);
  }
  char x = 0;
  REQUIRE(read(ready[0], &x, 1) == 1);
  CHECK(files_in(tmp.path) == 7);
  f.save(name);
  CHECK(files_in(tmp.path) == 7);
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, nullptr, 0) == child);
  CHECK(files_in(tmp.path) == 7);
  f.save(name);
  CHECK(files_in(tmp.path) == 6);
  close(ready[0]), close(ready[1]);

  // Threads and processes that save at one time.
  std::atomic<int> failures{0};
  const auto save_often = [&](const std::string& what) {
    tensor_file own;
    own.metadata["v"] = what + text;
    for (int i = 0; i < 40; ++i) try {
        own.save(name);
        if (tensor_file::load(name).metadata.at("v").size() != text.size() + 1) ++failures;
      } catch (const std::exception& e) {
        ++failures;
      }
  };
  const pid_t other = fork();
  if (other == 0) {
    alarm(60);
    save_often("p");
    _exit(failures > 0);
  }
  {
    std::thread a(save_often, "a"), b(save_often, "b");
    a.join(), b.join();
  }
  int status = 0;
  REQUIRE(waitpid(other, &status, 0) == other);
  CHECK(status == 0);
  CHECK(failures == 0);
  CHECK(files_in(tmp.path) == 6);

  // A long name has a shorter one's temporary file.
  const std::string longest = tmp.file(std::string(255, 'n').c_str());
  f.save(longest);
  CHECK(tensor_file::load(longest).metadata == f.metadata);

  // One that is not committed leaves nothing.
  { atomic_file(name).write("half", 4); }
  CHECK(files_in(tmp.path) == 7);
  CHECK(tensor_file::load(name).note.empty());
}

TEST_CASE("groups: roles, rates and the table", "[param_groups]") {
  problem p("muon");
  const std::string table = p.groups.table();
  CHECK_THAT(table, Catch::Contains("hidden  hidden  9x6  lr 0.02"));
  CHECK_THAT(table, Catch::Contains("column  hidden  8x4  lr 0.01  decay 0.1"));
  CHECK_THAT(table, Catch::Contains("gain  vector  1x5  lr 0.003  decay 0"));
  CHECK(p.groups.size() == 5);  // two row blocks and a matrix; two others
  CHECK_THROWS_WITH(p.groups.step(-1), Catch::Contains("factor is -1"));

  // one schedule for all: factor 0 moves nothing, and group rates scale the step
  const auto before = p.w;
  p.g.assign(p.g.size(), 1.0F);
  p.groups.step(0);
  CHECK(p.w == before);
  eigen_backend cpu(1);
  CHECK_THROWS_WITH((param_groups(optimizer<muon, eigen_backend>(cpu), -1, optimizer<adamw, eigen_backend>(cpu), 1e-3)),
                    Catch::Contains("lr of \"matrix\" is -1"));
  float w = 1, g = 1;
  param_groups one(optimizer<muon, eigen_backend>(cpu), 0.02, optimizer<adamw, eigen_backend>(cpu), 1e-3);
  CHECK_THROWS_AS(one.finalize(), bad_order);
  one.add("v", row_major(&w, 1, 1), row_major(&g, 1, 1), role::vector);  // only the second group: fine
  CHECK_THROWS_AS(one.add("v", row_major(&w, 1, 1), row_major(&g, 1, 1), role::hidden), bad_value);
  one.finalize();
  one.step(0.5);
  CHECK(w == Approx(1 - 0.5e-3).epsilon(1e-6));
}

TEST_CASE("groups: a gradient that is not finite in one group skips the step in both", "[param_groups]") {
  for (const std::size_t bad : {std::size_t{3}, std::size_t{9 * 6 + 32 + 4}}) {  // in "hidden", in "embedding"
    problem clean("muon"), hit("muon");
    clean.step(0), hit.step(0);
    const auto before = hit.w;
    for (auto& g : hit.g) g = 0.5F;
    hit.g[bad] = std::numeric_limits<float>::quiet_NaN();
    hit.groups.step(1);
    CHECK(hit.w == before);
    const step_status status = hit.groups.poll_status();
    CHECK(status.skipped == 1);
    CHECK(status.parameters == std::vector<std::string>{bad == 3 ? "hidden.0" : "embedding"});
    hit.groups.set_steps(1);
    clean.step(1), hit.step(1);
    CHECK(clean.w == hit.w);  // as if the step had not been
    CHECK(hit.groups.poll_status().skipped == 0);
  }
}

namespace {

// Moves by gradient - 2 reference: neither of them alone, and no state.
struct difference {
  static constexpr bool needs_reference = true;
  struct combine {
    template <class T>
    MATOPT_HD void operator()(T& u, T g, T r) const {
      u = g - T(2) * r;
    }
  };
  static std::string name() { return "difference"; }
  template <class E, class St, class T, class C>
  void accumulate(E& e, St&, gradient_pair<T> g, view<C> u) const {
    e.for_each(combine{}, u, as_const<const T>(g), as_const(g.reference));
  }
};
using two_gradients = adamw::with_momentum<difference>;

}  // namespace

TEST_CASE("groups: a reference gradient for the group that needs one", "[param_groups]") {
  eigen_backend cpu(1);
  float w[2] = {1, 1}, g[2] = {4, 4}, r[2] = {1, 1}, other = 3;
  const auto at = [](float* p) { return row_major(p, 1, 1); };
  const auto check = [&](auto& groups) {
    w[0] = w[1] = 1;
    CHECK(groups.needs_reference(role::hidden));
    CHECK_FALSE(groups.needs_reference(role::vector));
    CHECK_THROWS_WITH(groups.add("a", at(w), at(g), role::hidden), Catch::Contains("reference gradient of \"a\""));
    groups.add("a", at(w), at(g), at(r), role::hidden);
    groups.add("b", at(w + 1), at(g + 1), at(r + 1), role::vector);  // given, and not looked at
    groups.finalize();
    groups.step();
    CHECK(w[0] == Approx(1 - 0.5 * (4 - 2 * 1)));
    CHECK(w[1] == Approx(1 - 0.25));
    groups.rebind_reference("a", at(&other));
    groups.step();
    CHECK(w[0] == Approx(0 - 0.5 * (4 - 2 * 3)));
    CHECK_THROWS_WITH(groups.rebind_reference("b", at(&other)), Catch::Contains("this rule estimates from one"));
  };
  param_groups fixed(optimizer<two_gradients, eigen_backend>(cpu), 0.5, optimizer<adamw, eigen_backend>(cpu), 0.25);
  check(fixed);
  param_groups<eigen_backend> chosen(cpu_optimizer(cpu, two_gradients{}), 0.5, cpu_optimizer(cpu, adamw{}), 0.25);
  check(chosen);
}

TEST_CASE("rules by name", "[any_optimizer]") {
  eigen_backend cpu(1);
  const auto r = rules();
  CHECK_THROWS_WITH(r.make("moun", cpu), Catch::Contains("unknown rule \"moun\"; nearest: \"muon\""));
  CHECK_THROWS_WITH(r.make("muon", cpu, {{"momentun", "0.9"}}), Catch::Contains("nearest: \"momentum\""));
  CHECK_THROWS_WITH(r.make("muon", cpu, {{"momentum", "1.5"}}), Catch::Contains("momentum is 1.5; legal: [0, 1)"));
  CHECK_THROWS_WITH(r.make("muon", cpu, {{"ns_coefficients", "kellr"}}), Catch::Contains("one of keller, you"));
  const auto chosen = r.make("muon", cpu, {{"momentum", "0.5"}, {"ns_steps", "7"}}).settings();
  const auto value = [&](const std::string& name) {
    for (const auto& s : chosen)
      if (s.name == name) return s.value;
    return std::string();
  };
  CHECK(value("momentum") == "0.5");
  CHECK(value("ns_steps") == "7");
  CHECK(value("decay") == "0");
  // A rule by itself, as groups take it.
  CHECK_THROWS_WITH(r.rule("muon", {{"momentum", "1.5"}}), Catch::Contains("momentum is 1.5; legal: [0, 1)"));
  param_groups<eigen_backend> groups(cpu);
  groups.add_group("hidden", r.rule("muon", {{"momentum", "0.5"}}), 0.02);
  CHECK(groups.settings().front().name == "hidden.momentum");
  CHECK(groups.settings().front().value == "0.5");
  CHECK(r.rule("adamw")->steps_vectors());
  CHECK_FALSE(r.rule("muon")->steps_vectors());
}
