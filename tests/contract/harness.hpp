// What the contract's checks share: a few parameters with gradients, stepped by one subject.
#pragma once
#include <catch2/catch.hpp>

#include "../support/tolerance.hpp"
#include "subject.hpp"

namespace matopt::test {

enum class content { random, rank_deficient, zero, tiny, huge };
inline constexpr content all_contents[] = {content::random, content::rank_deficient, content::zero, content::tiny,
                                           content::huge};
inline std::string name_of(content c) {
  constexpr const char* names[] = {"random", "rank-deficient", "zero", "tiny", "huge"};
  return names[static_cast<int>(c)];
}

template <class T>
void fill_gradient(stored<T>& g, content c, std::uint64_t seed) {
  const double huge = std::is_same_v<T, float> ? 1e30 : 1e150;
  switch (c) {
    case content::random:
      return g.fill_random(seed);
    case content::zero:
      return g.fill([](index_t, index_t, index_t) { return 0.0; });
    case content::tiny:
      return g.fill_random(seed, 1e-30);
    case content::huge:
      return g.fill_random(seed, huge);
    case content::rank_deficient: {
      const view<T> v = g.v();
      const mat a = random_mat(v.rows, 2, seed), b = random_mat(2, v.cols, seed + 1), x = a * b;
      return g.fill([&](index_t i, index_t j, index_t) { return x(i, j); });
    }
  }
}

struct shape {
  index_t rows, cols;
};

// Gradients whose sums, products and spectra grow in different ways.
enum class form { line, diagonal, rank_one, dense };
inline constexpr form all_forms[] = {form::line, form::diagonal, form::rank_one, form::dense};
inline std::string name_of(form f) {
  constexpr const char* names[] = {"line", "diagonal", "rank one", "dense"};
  return names[static_cast<int>(f)];
}
inline shape shape_of(form f) { return f == form::line ? shape{1, 2} : shape{6, 6}; }
template <class T>
void fill_form(stored<T>& g, form f, double size) {
  g.fill([&](index_t i, index_t j, index_t) {
    if (f == form::line) return j == 0 ? size : 0;
    if (f == form::diagonal) return i == j ? size : 0;
    if (f == form::rank_one) return size;
    return (i * 5 + j * 3 + i * j) % 4 < 2 ? size : -size / 3;
  });
}

// The short sides of 24 let the Krylov rules take their Krylov path (see rules_numuon.cpp).
inline constexpr shape all_shapes[] = {{24, 40}, {40, 24}, {25, 25}, {1, 7}, {7, 1}, {1, 1}};

template <class T>
struct parameter_data {
  stored<T> w, g, r;
  parameter_data(shape s, layout l, std::uint64_t seed)
      : w(s.rows, s.cols, l), g(s.rows, s.cols, l), r(s.rows, s.cols, l) {
    w.fill_random(seed, 0.5);
    g.fill_random(seed + 500);
    r.fill_random(seed + 900);
  }
};

// Owns the parameters, keeps a late backend's poison and a mirror's age out of the way, and remembers nothing else.
template <class T>
class bench {
 public:
  explicit bench(std::unique_ptr<subject<T>> s) : s_(std::move(s)) {}

  parameter_data<T>& add(const std::string& name, shape s, layout l = layout::row_major, std::uint64_t seed = 1,
                         const parameter_options& o = {}) {
    owned_.push_back(std::make_unique<parameter_data<T>>(s, l, seed));
    auto& p = *owned_.back();
    s_->track(p.w.memory().data(), p.w.bytes());
    s_->track(p.g.memory().data(), p.g.bytes());
    s_->track(p.r.memory().data(), p.r.bytes());
    s_->add(name, p.w.v(), p.g.cv(), p.r.cv(), o);
    return p;
  }
  void finalize() { s_->finalize(); }
  // New gradients, then a step.
  void step(double lr, content c, std::uint64_t seed) {
    s_->synchronize();
    for (std::size_t i = 0; i < owned_.size(); ++i) {
      fill_gradient(owned_[i]->g, c, seed + 31 * i);
      fill_gradient(owned_[i]->r, c, seed + 31 * i + 7000);
    }
    s_->step(lr);
  }
  void run(index_t steps, double lr = 0.02, content c = content::random) {
    for (index_t t = 0; t < steps; ++t) step(lr, c, 100 + static_cast<std::uint64_t>(t));
    s_->synchronize();
  }

  subject<T>& operator*() { return *s_; }
  subject<T>* operator->() { return s_.get(); }
  parameter_data<T>& operator[](std::size_t i) { return *owned_[i]; }
  std::size_t size() const { return owned_.size(); }

  // All weights, and all state, bit by bit.
  std::vector<T> weights() {
    s_->synchronize();
    std::vector<T> out;
    for (auto& p : owned_) {
      const auto x = elements(p->w.cv());
      out.insert(out.end(), x.begin(), x.end());
    }
    return out;
  }
  std::vector<std::byte> state() {
    std::vector<std::byte> out;
    s_->synchronize();
    for (const auto& t : s_->read_state()) out.insert(out.end(), t.bytes.begin(), t.bytes.end());
    return out;
  }
  bool state_is_finite() {
    const auto finite = []<class E>(E x, const std::byte* at) {
      std::memcpy(&x, at, sizeof x);
      return math::finite(x);
    };
    s_->synchronize();
    for (const auto& t : s_->read_state())
      for (std::size_t i = 0; i < t.bytes.size() && !holds_codes(t.type); i += size_of(t.type))
        if (!(size_of(t.type) == 4 ? finite(float{}, &t.bytes[i]) : finite(double{}, &t.bytes[i]))) return false;
    return true;
  }

 private:
  // Declared before the subject: a late backend writes the arrays once more when it goes.
  std::vector<std::unique_ptr<parameter_data<T>>> owned_;
  std::unique_ptr<subject<T>> s_;
};

template <class T>
double relative_difference(const std::vector<T>& a, const std::vector<T>& b) {
  double worst = 0, scale = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    if (!(std::abs(x - y) <= worst)) worst = std::abs(x - y);
    scale = std::max(scale, std::abs(y));
  }
  return scale > 0 ? worst / scale : worst;
}

}  // namespace matopt::test
