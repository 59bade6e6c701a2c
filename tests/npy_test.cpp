// .npy files: those that NumPy wrote, round trips, and what is refused.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <matopt/npy.hpp>

using namespace matopt;
using Catch::Contains;

namespace {

struct folder {  // a fresh folder that goes with the test
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("matopt-npy-" + std::to_string(::getpid()));
  folder() { std::filesystem::create_directories(path); }
  ~folder() { std::filesystem::remove_all(path); }
  std::string file(const char* name) const { return (path / name).string(); }
};

}  // namespace

// MATOPT_NPY_FILES were written by NumPy 2.
TEST_CASE(".npy files that NumPy wrote are read as they lie", "[npy]") {
  const auto load = [](const char* name) { return npy_array::load(MATOPT_NPY_FILES "/" + std::string(name)); };
  const auto check = [](const auto& v, index_t batch, index_t rows, index_t cols) {
    CHECK((v.batch == batch && v.rows == rows && v.cols == cols));
    for (index_t b = 0; b < batch; ++b)
      for (index_t i = 0; i < rows; ++i)
        for (index_t j = 0; j < cols; ++j) CHECK(double(v(i, j, b)) == double((b * rows + i) * cols + j));
  };
  check(load("f4-c").as<float>(), 1, 2, 3);
  const npy_array fortran = load("f8-fortran");
  CHECK(fortran.fortran_order());
  check(fortran.as<double>(), 1, 2, 3);
  check(load("f4-stack-v3").as<float>(), 2, 2, 3);
  check(load("f2-big-endian-v2").as<float16>(), 1, 4, 1);
  CHECK(load("scalar").as<double>()(0, 0) == 2.5);
  check(load("empty").as<float>(), 1, 0, 3);
  CHECK_THROWS_WITH(load("records"), Contains("records") && Contains("f2, f4 or f8"));
  CHECK_THROWS_WITH(load("f4-c").as<double>(), Contains("F32") && Contains("F64"));
}

TEST_CASE("a stack in Fortran order is read as it lies", "[npy]") {
  const folder tmp;
  const std::string header = "{'descr': '=f4', 'fortran_order': True, 'shape': (2, 4, 3), }";
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size()), bytes += '\0', bytes += header;
  for (int i = 0; i < 24; ++i) {
    const auto x = static_cast<float>(i);
    bytes.append(reinterpret_cast<const char*>(&x), sizeof x);
  }
  std::ofstream(tmp.file("stack.npy"), std::ios::binary) << bytes;
  const npy_array a = npy_array::load(tmp.file("stack.npy"));
  const auto v = a.as<float>();
  REQUIRE((v.batch == 2 && v.rows == 4 && v.cols == 3));
  for (index_t b = 0; b < 2; ++b)
    for (index_t i = 0; i < 4; ++i)
      for (index_t j = 0; j < 3; ++j) CHECK(v(i, j, b) == static_cast<float>(b + 2 * (i + 4 * j)));
}

TEST_CASE("views go to .npy files and come back", "[npy]") {
  const folder tmp;
  std::vector<double> x(24);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.5 * double(i);
  const auto same = [](const view<const double>& a, const view<const double>& b) {
    bool equal = a.rows == b.rows && a.cols == b.cols && a.batch == b.batch;
    for (index_t m = 0; equal && m < a.batch; ++m)
      for (index_t i = 0; i < a.rows; ++i)
        for (index_t j = 0; j < a.cols; ++j) equal &= a(i, j, m) == b(i, j, m);
    return equal;
  };
  for (const view<double>& v : {row_major(x.data(), 4, 6), col_major(x.data(), 4, 6), row_major(x.data(), 4, 6).t(),
                                row_major(x.data(), 2, 3, 4), row_major(x.data(), 4, 6).col_block(1, 2),
                                view<double>{x.data(), 2, 3, 12, 2}, row_major(x.data(), 3, 0)}) {
    save_npy(tmp.file("x.npy"), v);
    const npy_array back = npy_array::load(tmp.file("x.npy"));
    CHECK(same(v, back.as<double>()));
    CHECK(back.fortran_order() == (v.batch == 1 && v.row_stride == 1));
  }
  // Without elements, however long its rows and columns would be, a view takes neither memory nor time.
  constexpr index_t huge = 1'000'000'000'000'000;
  for (const view<double>& v :
       {row_major(x.data(), 0, huge), row_major(x.data(), huge, 0), col_major(x.data(), huge, 0),
        row_major(x.data(), huge, huge, 0), row_major(x.data(), 0, 2, huge)}) {
    save_npy(tmp.file("x.npy"), v);
    const npy_array back = npy_array::load(tmp.file("x.npy"));
    const view<const double> w = back.as<double>();
    CHECK((w.rows == v.rows && w.cols == v.cols && w.batch == v.batch));
  }
}

TEST_CASE("malformed .npy files are refused by what is wrong with them", "[npy]") {
  const folder tmp;
  const auto refused = [&](const std::string& bytes, const std::string& why) {
    std::ofstream(tmp.file("bad.npy"), std::ios::binary) << bytes;
    INFO(bytes);
    CHECK_THROWS_WITH(npy_array::load(tmp.file("bad.npy")), Contains("bad.npy") && Contains(why));
  };
  const auto with = [](std::string header, const std::string& data = std::string(24, '\0'), char version = 1) {
    std::string out("\x93NUMPY", 6);
    out += version, out += '\0';
    out += static_cast<char>(header.size()), out += '\0';
    if (version > 1) out += std::string(2, '\0');
    return out + header + data;
  };
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  std::ofstream(tmp.file("good.npy"), std::ios::binary) << with(good);
  CHECK(npy_array::load(tmp.file("good.npy")).shape() == std::vector<index_t>{2, 3});
  const auto edited = [&](const std::string& from, const std::string& to) {
    std::string h = good;
    return with(h.replace(h.find(from), from.size(), to));
  };
  refused("", "no .npy file");
  refused("PK\x03\x04 an archive of arrays", "no .npy file");
  refused(with(good, std::string(24, '\0'), 4), "version is 4.0");
  refused(with(good).substr(0, 30), "cut off in its header");
  refused(with(good).substr(0, 10 + good.size() - 5), "cut off in its header");
  refused(with(good, std::string(23, '\0')), "cut off");
  refused(with(good, std::string(25, '\0')), "25 stand behind");
  refused(edited("<f4", "<i4"), "\"<i4\"");
  refused(edited("<f4", "<V2"), "\"<V2\"");
  refused(edited("<f4", "|O"), "\"|O\"");
  refused(edited("'<f4'", "[('a', '<f4')]"), "records");
  refused(edited("False", "Maybe"), "neither True nor False");
  refused(edited("(2, 3)", "(2, -3)"), "shape");
  refused(edited("(2, 3)", "(2, 3.0)"), "before \".0), }\"");
  refused(edited("(2, 3)", "(99999999999999999999, 3)"), "impossible");
  refused(edited("(2, 3)", "(4294967296, 4294967296, 4294967296)"), "cut off");
  refused(edited("(2, 3)", "(1, 1, 2, 3)"), "4 dimensions");
  refused(edited("(2, 3)", "2"), "'(' is missing");
  refused(edited("'shape'", "'descr'"), "twice");
  refused(edited("'shape': (2, 3), ", ""), "lacks shape");
  refused(edited("'shape'", "'form'"), "\"form\"");
  refused(edited("}", "} 1"), "behind the dictionary");
  refused(edited("}", ""), "'");
  CHECK_THROWS_WITH(npy_array::load(tmp.file("absent.npy")), Contains("absent.npy"));
  CHECK_THROWS_WITH(npy_array::load("/dev/null"), Contains("device"));
}
