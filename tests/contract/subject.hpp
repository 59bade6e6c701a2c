// The subject of a check: one optimizer with a backend of its own, type-erased, so that the checks are compiled once
// for all rules and all backends. The caller's arrays are host memory always; where a backend has memory of its own,
// the subject keeps a copy of each tracked array there.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <matopt/engine/any_optimizer.hpp>

#include "../support/matrices.hpp"
#include "../support/tolerance.hpp"
#include "mirrors.hpp"

namespace matopt::test {

// A backend, counting what it is asked for.
template <class B>
struct counting : B {
  static constexpr bool has_threads = requires(const B& b) { b.threads(); };
  std::size_t asked = 0;

  explicit counting(int threads) requires has_threads : B(threads) {}
  explicit counting(int) requires(!has_threads) {}

  typename B::buffer allocate(std::size_t bytes) {
    asked += bytes;
    return B::allocate(bytes);
  }
  typename B::buffer uncounted(std::size_t bytes) { return B::allocate(bytes); }
};
template <class B>
inline constexpr bool has_own_memory<counting<B>> = has_own_memory<B>;
template <class B>
inline constexpr accuracy accuracy_of<counting<B>> = accuracy_of<B>;

// One tensor of state, on the host: dense and row-major.
struct state_bytes {
  std::string name;
  element_type type;
  std::vector<std::byte> bytes;
};

template <class T>
class subject {
 public:
  virtual ~subject() = default;
  // r: the reference gradient, for rules that need one
  virtual void add(const std::string& name, view<T> w, view<const T> g, view<const T> r,
                   const parameter_options& o = {}) = 0;
  virtual bool needs_reference() const = 0;
  virtual void finalize() = 0;
  virtual void step(double lr, double gradient_scale = 1) = 0;
  virtual step_status poll_status() = 0;
  virtual void rebind(const std::string& name, view<const T> g) = 0;
  virtual void leave_out(const std::vector<std::string>& names) = 0;
  virtual memory_report memory() const = 0;
  virtual std::vector<state_bytes> read_state() = 0;
  virtual void write_state(const std::vector<state_bytes>& state) = 0;
  virtual void set_steps(index_t t) = 0;
  virtual index_t steps() const = 0;
  virtual index_t bucket_count() const = 0;
  virtual std::size_t asked() = 0;  // bytes that the optimizer has asked the backend for
  virtual const accuracy& promises() const = 0;
  // Every array that a parameter or a gradient lies in. A late backend poisons it until synchronize(); one with memory
  // of its own copies it there before a step, and back in synchronize().
  virtual void track(void* p, std::size_t bytes) = 0;
  // To be called before the host reads or writes a tracked array after a step.
  virtual void synchronize() = 0;
};

struct subject_options {
  int threads = 1;
  optimizer_options optimizer{};
};

template <class Backend, class T>
class subject_of final : public subject<T> {
  static constexpr bool late = requires(Backend b) { b.inner().asked; };  // deferred_backend
  static constexpr bool mirrored = has_own_memory<Backend>;
  using optimizer = any_optimizer<Backend, types<T>>;

 public:
  // make(backend, options): the optimizer
  template <class Make>
  subject_of(Make make, const subject_options& o)
      : backend_(o.threads), mirrors_(backend_), opt_(make(backend_, o.optimizer)) {}

  void add(const std::string& name, view<T> w, view<const T> g, view<const T> r, const parameter_options& o) override {
    opt_.add(name, there(w), there(g), there(r), o);
  }
  bool needs_reference() const override { return opt_.needs_reference(); }
  void finalize() override {
    upload();  // a rule may begin its state with the weights
    opt_.finalize();
  }
  void step(double lr, double gradient_scale = 1) override {
    upload();
    opt_.step(lr, gradient_scale);
    if constexpr (mirrored) mirrors_.changed();
  }
  step_status poll_status() override { return opt_.poll_status(); }
  void rebind(const std::string& name, view<const T> g) override { opt_.rebind(name, there(g)); }
  void leave_out(const std::vector<std::string>& names) override { opt_.leave_out(names); }
  memory_report memory() const override { return opt_.memory(); }
  std::vector<state_bytes> read_state() override {
    std::vector<state_bytes> out;
    for (const auto& t : opt_.state_tensors()) {
      out.push_back(
          {t.name, t.type, std::vector<std::byte>(static_cast<std::size_t>(t.rows * t.cols) * size_of(t.type))});
      opt_.read_state(t, out.back().bytes.data());
    }
    return out;
  }
  void write_state(const std::vector<state_bytes>& state) override {
    for (const auto& t : opt_.state_tensors())
      for (const auto& s : state)
        if (s.name == t.name) opt_.write_state(t, s.bytes.data());
  }
  void set_steps(index_t t) override { opt_.set_steps(t); }
  index_t steps() const override { return opt_.steps(); }
  index_t bucket_count() const override { return opt_.bucket_count(); }
  std::size_t asked() override {
    if constexpr (late)
      return backend_.inner().asked;
    else
      return backend_.asked;
  }
  const accuracy& promises() const override { return accuracy_of<Backend>; }
  void track(void* p, std::size_t bytes) override {
    if constexpr (late) backend_.track(p, bytes);
    if constexpr (mirrored) mirrors_.track(p, bytes);
  }
  void synchronize() override {
    if constexpr (requires { backend_.synchronize(); }) backend_.synchronize();
    if constexpr (mirrored) mirrors_.download();
  }

 private:
  struct no_mirrors {
    explicit no_mirrors(Backend&) {}
  };
  template <class V>
  V there(const V& v) const {
    if constexpr (mirrored)
      return mirrors_.there(v);
    else
      return v;
  }
  void upload() {
    if constexpr (mirrored) mirrors_.upload();
  }

  Backend backend_;
  std::conditional_t<mirrored, mirrors<Backend>, no_mirrors> mirrors_;
  optimizer opt_;
};

template <class Backend, class T, class Make>
std::unique_ptr<subject<T>> make_subject(Make make, const subject_options& o) {
  return std::make_unique<subject_of<Backend, T>>(make, o);
}

// Steps one parameter with mixed element types from W0 with the gradients given; the weight after it, in double.
using mixed_run = std::function<mat(const mat& w0, const std::vector<mat>& gradients, double lr)>;

template <class T>
using subject_maker = std::function<std::unique_ptr<subject<T>>(const subject_options&)>;

// A rule on the backend under test. What is empty is not checked.
struct contract_rule {
  std::string name;
  bool exact_at_rest = true;      // a zero update gives the same weights to the bit, not to rounding
  bool unique_trajectory = true;  // false where rounding decides between equally right steps (SOAP's equal eigenvalues)
  bool newton_schulz = false;     // iterates products, which a backend may do in 16 bits
  subject_maker<float> in_float{};
  subject_maker<double> in_double{}, late{};
  subject_maker<float> float_on_cpu{};  // the same rule, where the backend under test is another
  subject_maker<double> double_on_cpu{};
  mixed_run in_double_types{};
  std::vector<std::pair<std::string, mixed_run>> mixed{};  // by the name of the coarsest element type
  std::vector<setting> settings{};                         // of the rule, where they can be set by text
  std::function<std::unique_ptr<subject<float>>(const std::vector<setting>&)> with_settings{};

  template <class T>
  std::unique_ptr<subject<T>> make(const subject_options& o = {}) const {
    if constexpr (std::is_same_v<T, float>)
      return in_float(o);
    else
      return in_double(o);
  }
};

// The rules under test: each program of the contract defines its own table.
const std::vector<contract_rule>& contract_rules();

}  // namespace matopt::test
