// Elementwise formulas that several policies share. A functor of for_each takes its outputs by reference first and its
// inputs by value after them; a functor of a reduction returns one term and names how terms combine (sum, unless it
// says otherwise). Formulas of one method stand beside that method's equations, in its policy header.
#pragma once
#include "math.hpp"

namespace matopt::fn {

struct sum {
  template <class T>
  MATOPT_HD static constexpr T identity() {
    return T(0);
  }
  template <class T>
  MATOPT_HD static constexpr T combine(T a, T b) {
    return a + b;
  }
};
struct maximum {  // of terms that are not negative
  template <class T>
  MATOPT_HD static constexpr T identity() {
    return T(0);
  }
  template <class T>
  MATOPT_HD static constexpr T combine(T a, T b) {
    return math::max(a, b);
  }
};

// y = x
struct assign {
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = x;
  }
};
// sum x
struct identity {
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return x;
  }
};
// sum x y
struct product {
  template <class T>
  MATOPT_HD T operator()(T x, T y) const {
    return x * y;
  }
};
// y = y + x
struct add {
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y += x;
  }
};
// y = max(y, x), of flags
struct raise {
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y = math::max(y, x);
  }
};
// max |x|
struct abs_max {
  using reduction = maximum;
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return math::abs(x);
  }
};
// max x, of flags
struct any {
  using reduction = maximum;
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return x;
  }
};
// 1 if x is NaN or infinite
struct not_finite {
  using reduction = maximum;
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return T(!math::finite(x));
  }
};
struct not_both_finite {
  using reduction = maximum;
  template <class T>
  MATOPT_HD T operator()(T x, T y) const {
    return T(!math::finite(x) || !math::finite(y));
  }
};
// The same of s x, in the type C that it is about to have.
template <class C>
struct scaled_not_finite {
  using reduction = maximum;
  template <class T>
  MATOPT_HD T operator()(T x, T s) const {
    return T(!math::finite(static_cast<C>(s * x)));
  }
};
template <class C>
struct scaled_not_both_finite {
  using reduction = maximum;
  template <class T>
  MATOPT_HD T operator()(T x, T y, T s) const {
    return T(!math::finite(static_cast<C>(s * x)) || !math::finite(static_cast<C>(s * y)));
  }
};
// y = s x
struct scaled {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T s) const {
    y = s * x;
  }
};
// sum x^2
struct square {
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return x * x;
  }
};
// sum (x / s)^2, with 0 / 0 taken as 0
struct scaled_square {
  template <class T>
  MATOPT_HD T operator()(T x, T s) const {
    const T q = s > T(0) ? x / s : T(0);
    return q * q;
  }
};
// n = s sqrt(q): a norm from its largest entry and the sum of scaled squares
struct scaled_root {
  template <class T>
  MATOPT_HD void operator()(T& n, T s, T q) const {
    n = s * math::sqrt(q);
  }
};
// y = x / s, with x / 0 taken as 0
struct divide {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T s) const {
    y = s > T(0) ? x / s : T(0);
  }
};

}  // namespace matopt::fn
