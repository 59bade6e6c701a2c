// Wrote the checkpoints in files/: compiled against the headers of version 0.1 (commit c09a09f) and run once.
//
//   g++ -std=c++20 -O0 -I<include of 0.1> -I. -isystem <Eigen> write.cpp -o write -pthread && ./write files
//
// Every published rule, with float and with double, takes 12 steps on two matrices and saves its state. Beside it
// stand the weights of that moment ("model.<name>"), those of 12 steps later ("after.<name>"), the learning rate, and
// the settings of the rule, which 0.1 did not save itself.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <matopt/eigen.hpp>
#include <matopt/published_rules.hpp>
#include <matopt/state_io.hpp>

#include "problem.hpp"

using namespace matopt;

template <class T>
void put(tensor_file& file, const std::string& name, const matopt::test::old_problem<T>& p) {
  for (const auto& m : p.matrices) {
    auto& t = file.tensors[name + m.name];
    t = {element_type_of<T>(), {m.rows, m.cols}, std::vector<std::byte>(m.w.size() * sizeof(T))};
    std::memcpy(t.data.data(), m.w.data(), t.data.size());
  }
}

template <class T>
void write_all(const std::string& folder) {
  eigen_backend cpu(1);
  rule_registry<eigen_backend, types<T>> rules;
  add_published_rules(rules);
  for (const std::string& name : rules.names()) {
    auto opt = rules.make(name, cpu);
    matopt::test::old_problem<T> p;
    p.add_to(opt);
    for (int t = 0; t < 12; ++t) p.step(opt, rules.published_lr(name), t);
    tensor_file file;
    store_state(opt, file);
    put(file, "model.", p);
    for (const setting& s : rules.settings(name)) file.metadata["settings." + s.name] = s.value;
    for (int t = 12; t < 24; ++t) p.step(opt, rules.published_lr(name), t);
    put(file, "after.", p);
    file.metadata["lr"] = detail::text(rules.published_lr(name));
    file.save(folder + "/" + name + (sizeof(T) == 4 ? ".float" : ".double") + ".safetensors");
  }
}

int main(int, char** argv) {
  write_all<float>(argv[1]);
  write_all<double>(argv[1]);
}
