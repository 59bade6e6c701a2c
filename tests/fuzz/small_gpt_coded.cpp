// Matrices of whole numbers in a compressed model, entropy-coded or not.
#include <small_gpt/coded_tensors.hpp>
#include <small_gpt/quantized_rows.hpp>

#include "target.hpp"

FUZZ(small_gpt_coded) {
  using namespace small_gpt;
  using matopt::element_type, matopt::index_t;
  if (data.size() > 2048) return;  // a stream may stand for some thousand times its length
  std::vector<std::byte> bytes;
  for (const char c : data) bytes.push_back(static_cast<std::byte>(c));
  for (const unsigned bits : {8U, 4U}) {
    const auto coded = range_encoded(bytes, bits);
    fuzz::require(range_decoded(coded.data(), coded.size(), bits, bytes.size()) == bytes, "other bytes came back");
  }
  matopt::tensor_file file;
  file.tensors["w.q.coded"] = {element_type::u8, {static_cast<index_t>(bytes.size())}, bytes};
  fuzz::refuse_or([&] {
    entropy_decode(file);
    const auto q = file.tensors.at("w.q");
    fuzz::require(q.data.size() == static_cast<std::size_t>(q.shape[0] * q.shape[1]), "another number of elements");
    if (q.data.empty()) return;  // of any number of rows
    matopt::tensor_file again = file;
    entropy_code(again);
    entropy_decode(again);
    fuzz::require(again.tensors.at("w.q").data == q.data, "another matrix came back");
    const index_t rows = q.shape[0], cols = q.type == element_type::i8 ? q.shape[1] : 2 * q.shape[1];
    file.tensors["w.scale"] = {
        element_type::f32, {rows, 1}, std::vector<std::byte>(static_cast<std::size_t>(rows) * 4)};
    std::vector<float> values(static_cast<std::size_t>(rows * cols), 1.0F);
    fuzz::require(load_quantized(file, "w", rows, cols, values.data()), "a matrix that is there was not found");
    fuzz::require(std::all_of(values.begin(), values.end(), [](float x) { return x == 0; }), "scales that are 0");
  });
}
