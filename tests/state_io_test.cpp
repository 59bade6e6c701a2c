// Checkpoints of optimizer state, parameter groups and rules by name.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <random>

#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/rule_registry.hpp>
#include <matopt/state_io.hpp>

using namespace matopt;
namespace fs = std::filesystem;

namespace {

struct folder {  // a fresh folder that goes with the test
  fs::path path = fs::temp_directory_path() / ("matopt-" + std::to_string(std::random_device{}()));
  folder() { fs::create_directories(path); }
  ~folder() { fs::remove_all(path); }
  std::string file(const char* name) const { return (path / name).string(); }
};

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
  param_groups<cpu_optimizer, cpu_optimizer> groups;

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

TEST_CASE("tensor files round-trip, and damaged ones are refused", "[state_io]") {
  const folder tmp;
  tensor_file f;
  f.metadata["note"] = "a \"quoted\" text, ünïcode";
  f.tensors["a"] = {element_type::f64, {2, 3}, std::vector<std::byte>(48, std::byte{7})};
  f.tensors["empty"] = {element_type::f32, {0}, {}};
  f.tensors["b"] = {element_type::bf16, {5}, std::vector<std::byte>(10, std::byte{1})};
  f.save(tmp.file("f"));
  const tensor_file back = tensor_file::load(tmp.file("f"));
  CHECK(back.metadata == f.metadata);
  CHECK(back.tensors.size() == 3);
  CHECK(back.tensors.at("a").data == f.tensors["a"].data);
  CHECK(back.tensors.at("a").shape == std::vector<index_t>{2, 3});
  CHECK(back.tensors.at("b").type == element_type::bf16);

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
  damaged(R"({"a":{"dtype":"I8","shape":[8],"data_offsets":[0,8]}})");
  damaged(R"({"a":{"shape":[8]}})");
  CHECK_THROWS_WITH(tensor_file::load(tmp.file("absent")), Catch::Contains("absent"));
}

TEST_CASE("a failed write leaves the old file", "[state_io]") {
  const folder tmp;
  tensor_file f;
  f.metadata["v"] = "1";
  f.save(tmp.file("f"));
  CHECK_THROWS_WITH(f.save(tmp.file("no/such/folder")), Catch::Contains("no/such/folder"));
  f.metadata["v"] = "2";
  fs::create_directory(tmp.path / "target");
  CHECK_THROWS_AS(f.save(tmp.file("target")), bad_file);  // a folder cannot be renamed over
  CHECK(std::distance(fs::directory_iterator(tmp.path), fs::directory_iterator()) == 2);  // no temporary file is left
  if (fs::exists("/dev/full")) {
    // A full disk: the temporary file is replaced by a link to a device that refuses every byte.
    fs::create_symlink("/dev/full", tmp.path / ("f.tmp." + std::to_string(::getpid())));
    CHECK_THROWS_WITH(f.save(tmp.file("f")), Catch::Contains("No space left"));
  }
  CHECK(tensor_file::load(tmp.file("f")).metadata.at("v") == "1");
}

TEST_CASE("groups: roles, rates and the table", "[param_groups]") {
  problem p("muon");
  const std::string table = p.groups.table();
  CHECK_THAT(table, Catch::Contains("hidden  hidden  9x6  lr 0.02"));
  CHECK_THAT(table, Catch::Contains("column  hidden  8x4  lr 0.01  decay 0.1"));
  CHECK_THAT(table, Catch::Contains("gain  vector  1x5  lr 0.003  decay 0"));
  CHECK(p.groups.matrix().size() == 3);  // two row blocks and a matrix
  CHECK(p.groups.rest().size() == 2);
  CHECK_THROWS_WITH(p.groups.step(-1), Catch::Contains("factor is -1"));

  // one schedule for all: factor 0 moves nothing, and group rates scale the step
  const auto before = p.w;
  p.g.assign(p.g.size(), 1.0F);
  p.groups.step(0);
  CHECK(p.w == before);
  eigen_backend cpu(1);
  CHECK_THROWS_WITH((param_groups(optimizer<muon, eigen_backend>(cpu), -1, optimizer<adamw, eigen_backend>(cpu), 1e-3)),
                    Catch::Contains("matrix_lr is -1"));
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
  param_groups<cpu_optimizer, cpu_optimizer> chosen(cpu_optimizer(cpu, two_gradients{}), 0.5,
                                                    cpu_optimizer(cpu, adamw{}), 0.25);
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
}
