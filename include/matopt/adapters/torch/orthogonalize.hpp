// orthogonalized(backend, newton_schulz<>{}, x): a new tensor with every matrix of x, of shape (..., m, n), replaced by
// about U V^T, where x = U S V^T. Any orthogonalizer will do. Tensors of 16 bits are computed in float. x is only read.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

#include "../../orthogonalize.hpp"
#include "matrix.hpp"
#include "shard.hpp"

namespace MATOPT_NAMESPACE {

template <class Backend, class Policy>
at::Tensor orthogonalized(Backend& backend, const Policy& policy, const at::Tensor& x) {
  const at::ScalarType compute = detail::compute_type_of("the tensor", x);
  if (x.dim() < 2) throw bad_value("shape of the tensor", detail::text(x.sizes()), "of two dimensions or more");
  at::Tensor out = x.detach().to(compute, false, true).contiguous();
  if (out.numel() == 0) return out.to(x.scalar_type());
  const index_t rows = x.size(-2), cols = x.size(-1), count = out.numel() / (rows * cols);
  {
    const typename torch_device<Backend>::turn turn(backend);
    const auto run = [&](auto* data) { orthogonalize(backend, policy, row_major(data, rows, cols, count)); };
    if (compute == at::kDouble)
      run(static_cast<double*>(out.data_ptr()));
    else
      run(static_cast<float*>(out.data_ptr()));
  }
  return out.to(x.scalar_type());
}

}  // namespace MATOPT_NAMESPACE
