// tensor_file::load: what it takes, it writes and reads again as the same.
#include <matopt/tensor_file.hpp>

#include "target.hpp"

FUZZ(tensor_file) {
  fuzz::refuse_or([&] {
    const std::string path = fuzz::file_with(data);
    const matopt::tensor_file first = matopt::tensor_file::load(path);
    first.save(path);
    const matopt::tensor_file again = matopt::tensor_file::load(path);
    fuzz::require(again.metadata == first.metadata && again.tensors.size() == first.tensors.size(),
                  "another file came back");
    for (const auto& [name, t] : first.tensors) {
      const auto& other = again.tensors.at(name);
      fuzz::require(other.type == t.type && other.shape == t.shape && other.data == t.data, "another tensor came back");
    }
  });
}
