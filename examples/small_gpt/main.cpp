// small_gpt: trains a small GPT with any rule of the library, samples from it, looks into it, compresses it, compares
// rules.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "compression.hpp"
#include "report.hpp"
#include "sampling.hpp"
#include "trainer.hpp"

using namespace small_gpt;

namespace {

struct options {
  run_settings run;
  std::string out = "run", checkpoint, resume, data, prompt, method = "whitened", save;
  std::vector<std::string> rules{"adamw", "muon", "numuon", "muown"};
  std::vector<double> keep{0.8, 0.6, 0.4, 0.2};
  int threads = 0, length = 500, calibration = 128, eval_windows = -1;
  double temperature = 0.8;
  int top_k = 0;
  std::uint64_t sample_seed = 1;
};

void add_training_options(CLI::App& c, run_settings& s) {
  c.add_option("--vocabulary", s.vocabulary, "character or byte")->capture_default_str();
  c.add_option("--train-fraction", s.train_fraction, "part of the text, from its start, that trains")
      ->capture_default_str();
  c.add_option("--arch", s.architecture, "modern or nanogpt")->capture_default_str();
  c.add_option("--layers", s.layers)->capture_default_str();
  c.add_option("--heads", s.heads)->capture_default_str();
  c.add_option("--width", s.width)->capture_default_str();
  c.add_option("--context", s.context, "tokens a prediction may see")->capture_default_str();
  c.add_option("--batch", s.batch, "sequences per step")->capture_default_str();
  c.add_option("--iterations", s.iterations, "steps")->capture_default_str();
  c.add_option("--other-lr", s.other_lr, "AdamW's rate for everything but hidden matrices; 0: 0.003");
  c.add_option("--set-other", s.set_other, "key=value, a setting of that AdamW");
  c.add_option("--schedule", s.schedule, "wsd, cosine or constant")->capture_default_str();
  c.add_option("--warmup", s.warmup, "steps; -1: a fiftieth of the training")->capture_default_str();
  c.add_option("--decay-fraction", s.decay_fraction, "wsd: last part of the training, in which the rate falls")
      ->capture_default_str();
  c.add_option("--lr-floor", s.lr_floor, "the rate's end as a fraction")->capture_default_str();
  c.add_option("--clip", s.clip, "bound of the global gradient norm; 0: none")->capture_default_str();
  c.add_option("--seed", s.seed)->capture_default_str();
  c.add_option("--shards", s.shards, "parts of the batch that are added in fixed order")->capture_default_str();
  c.add_option("--eval-interval", s.eval_interval, "steps between validations")->capture_default_str();
  c.add_option("--eval-windows", s.eval_windows, "validation windows; 0: the whole validation text")
      ->capture_default_str();
  c.add_option("--checkpoint-interval", s.checkpoint_interval, "steps between checkpoints")->capture_default_str();
}

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

void print_result(const train_result& r) {
  std::printf(
      "%s after %d steps: validation %.4f nats per token, %.4f bits per byte; %.1f s, %.0f tokens/s, optimizer %.1f %% "
      "of the time\n",
      r.interrupted ? "stopped" : "done", r.steps, r.validation_loss, r.bits_per_byte, r.seconds, r.tokens_per_second,
      100 * r.optimizer_share);
}

void train(const options& o, matopt::eigen_backend& cpu) {
  trainer t = o.resume.empty() ? trainer(o.run, cpu, o.out) : trainer(o.resume, o.data, cpu, o.out);
  std::printf("%s", t.groups().table().c_str());
  const auto m = t.groups().memory();
  std::printf("optimizer memory: state %zu bytes, scratch %zu bytes\n", m.state_bytes, m.scratch_bytes);
  const train_result r = t.run();
  print_result(r);
  std::printf("checkpoint: %s\n", t.checkpoint_path().c_str());
}

std::unique_ptr<trained_model> load(const options& o, matopt::eigen_backend& cpu, bool with_text = true) {
  return load_model(matopt::tensor_file::load(o.checkpoint), with_text ? o.data : "-", cpu.pool());
}
int windows(const options& o, const trained_model& m) {
  return o.eval_windows >= 0 ? o.eval_windows : m.settings.eval_windows;
}

void eval(const options& o, matopt::eigen_backend& cpu) {
  const auto m = load(o, cpu);
  const double loss = m->validation_loss(cpu.pool(), windows(o, *m));
  std::printf("validation %.6f nats per token, %.6f bits per byte\n", loss, m->text().validation_bits_per_byte(loss));
}

void sample(const options& o, matopt::eigen_backend& cpu) {
  const auto m = load(o, cpu, false);
  const auto prompt = m->words.encode(o.prompt);
  std::fputs(o.prompt.c_str(), stdout);
  if (o.length < 0) throw matopt::bad_value("--length", std::to_string(o.length), ">= 0");
  generate(m->model, cpu.pool(), prompt, static_cast<std::size_t>(o.length), {o.temperature, o.top_k}, o.sample_seed,
           [&](std::int32_t token) {
             std::fputs(m->words.decode(std::span(&token, 1)).c_str(), stdout);
             std::fflush(stdout);
           });
  std::puts("");
}

void print_matrices(const std::vector<matrix_report>& all) {
  std::printf("%-28s %10s %9s %9s %9s %9s %9s %9s\n", "matrix", "shape", "spectral", "stable", "effective", "least row",
              "most row", "coherence");
  for (const auto& r : all)
    std::printf("%-28s %5td x%4td %9.3f %9.2f %9.2f %9.3f %9.3f %9.3f\n", r.name.c_str(), r.rows, r.cols,
                r.spectral_norm, r.stable_rank, r.effective_rank, r.least_row, r.greatest_row, r.coherence);
}

void compress_checkpoint(const options& o, matopt::eigen_backend& cpu) {
  const auto m = load(o, cpu);
  const method how = method_named(o.method);
  if (o.keep.empty()) throw matopt::bad_value("--keep", "empty", "one ratio or more in (0, 1]");
  if (!o.save.empty() && o.keep.size() != 1)
    throw matopt::bad_value("--keep", std::to_string(o.keep.size()) + " ratios", "one, with --save");
  const calibration c = calibration::of(*m, o.calibration);
  const double dense = m->validation_loss(cpu.pool(), windows(o, *m));
  std::printf("%-6s %12s %12s %10s %10s\n", "keep", "parameters", "bytes", "loss", "ridge");
  const auto results = compress(*m, cpu, c, how, o.keep, windows(o, *m));
  std::printf("%-6s %12td %12td %10.4f\n", "dense", results.front().dense_parameters,
              results.front().dense_parameters * 4, dense);
  for (std::size_t i = 0; i < o.keep.size(); ++i) {
    const compressed_model& r = results[i];
    std::printf("%-6g %12td %12td %10.4f %10.1e\n", o.keep[i], r.parameters, r.bytes(), r.loss, r.ridge);
  }
  if (!o.save.empty()) save_compressed(*m, results.front(), o.save);
}

void compare(const options& o, matopt::eigen_backend& cpu) {
  require_gnuplot();
  for (const auto& rule : o.rules) rules().settings(rule);  // a misspelt rule shows now, not after the others' training
  comparison c;
  c.processor = processor(), c.threads = cpu.threads(), c.keep = o.keep;
  for (const double k : o.keep) matopt::rank_for(k, 1, 1);
  for (const auto& rule : o.rules) {
    run_settings s = o.run;
    s.rule = rule;
    std::fprintf(stderr, "--- %s\n", rule.c_str());
    trainer t(s, cpu, o.out + "/" + rule);
    comparison::entry e;
    e.training = t.run();
    if (e.training.interrupted) throw matopt::error("stopped during " + rule + "; checkpoint: " + t.checkpoint_path());
    trained_model& m = t.model();
    e.rule = rule, e.lr = m.settings.lr, e.signature = t.groups().signature();
    e.matrices = inspect(m, cpu);
    const calibration inputs = calibration::of(m, o.calibration);
    e.plain = compress(m, cpu, inputs, method::svd, o.keep, s.eval_windows);
    e.whitened = compress(m, cpu, inputs, method::whitened, o.keep, s.eval_windows);
    c.dense_bytes = static_cast<matopt::index_t>(m.model.weights().size()) * 4;
    c.settings = m.settings;
    c.entries.push_back(std::move(e));
  }
  const std::string table = table_of(c);
  write_json(c, o.out + "/report.json");
  write_page(c, o.out + "/report.html");
  std::ofstream(o.out + "/report.md") << table;
  std::printf("\n%s\nreport: %s/report.html\n", table.c_str(), o.out.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{"Trains a small GPT with the optimizers of matopt."};
  app.require_subcommand(1);
  app.add_option("--threads", o.threads, "0: one per core");

  auto* c_train = app.add_subcommand("train", "train, and leave a checkpoint and a log");
  auto* train_data = c_train->add_option("--data", o.data, "text to learn from; any bytes");
  auto* c_resume = c_train->add_option("--resume", o.resume, "a checkpoint to continue, with its settings");
  c_train->add_option("--out", o.out, "folder for the log and the checkpoint")->capture_default_str();
  c_train->add_option("--rule", o.run.rule, "optimizer of the hidden matrices; `small_gpt rules` lists them")
      ->capture_default_str();
  c_train->add_option("--set", o.run.set, "key=value, a setting of the rule");
  c_train->add_option("--lr", o.run.lr, "rate of the hidden matrices; 0: the rule's own");
  add_training_options(*c_train, o.run);

  auto* c_compare = app.add_subcommand("compare", "train several rules on the same batches; write a table and a page");
  c_compare->add_option("--data", o.data, "text to learn from")->required();
  c_compare->add_option("--out", o.out, "folder for the report")->capture_default_str();
  c_compare->add_option("--rules", o.rules, "comma-separated")->delimiter(',')->capture_default_str();
  c_compare->add_option("--keep", o.keep, "fractions for the compressed models")->delimiter(',')->capture_default_str();
  c_compare->add_option("--calibration", o.calibration, "training sequences behind the whitening")
      ->capture_default_str();
  add_training_options(*c_compare, o.run);

  const auto on_checkpoint = [&](const char* name, const char* what, bool with_text) {
    auto* c = app.add_subcommand(name, what);
    c->add_option("checkpoint", o.checkpoint)->required();
    if (with_text) {
      c->add_option("--data", o.data, "another text than it was trained on");
      c->add_option("--eval-windows", o.eval_windows, "validation windows; 0: the whole validation text");
    }
    return c;
  };
  auto* c_eval = on_checkpoint("eval", "validation loss of a checkpoint", true);
  auto* c_sample = on_checkpoint("sample", "text from a checkpoint", false);
  c_sample->add_option("--prompt", o.prompt);
  c_sample->add_option("--length", o.length, "tokens")->capture_default_str();
  c_sample->add_option("--temperature", o.temperature)->capture_default_str();
  c_sample->add_option("--top-k", o.top_k, "0: all")->capture_default_str();
  c_sample->add_option("--seed", o.sample_seed)->capture_default_str();
  auto* c_compress = on_checkpoint("compress", "low-rank form of a checkpoint: size and loss", true);
  c_compress->add_option("--method", o.method, "whitened, svd or asvd")->capture_default_str();
  c_compress->add_option("--keep", o.keep, "fractions of the parameters of each hidden matrix")
      ->delimiter(',')
      ->capture_default_str();
  c_compress->add_option("--calibration", o.calibration, "training sequences to look at")->capture_default_str();
  c_compress->add_option("--save", o.save, "write the compressed checkpoint");
  auto* c_inspect = on_checkpoint("inspect", "spectra of a checkpoint's matrices", false);
  auto* c_rules = app.add_subcommand("rules", "the rules, their settings and defaults");

  CLI11_PARSE(app, argc, argv);
  try {
    std::signal(SIGINT, [](int) {
      request_stop();
      std::signal(SIGINT, SIG_DFL);  // a second one ends at once
    });
    o.run.data = o.data;
    matopt::eigen_backend cpu(o.threads);
    if (*c_train) {
      if (o.resume.empty() && train_data->count() == 0)
        throw matopt::error("train needs --data, a text to learn from, or --resume");
      if (c_resume->count() > 0)
        for (const auto* given : c_train->parse_order())
          if (given != c_resume && given != train_data && given->get_name() != "--out")
            throw matopt::error(given->get_name() +
                                " cannot be changed on --resume: the checkpoint's settings continue");
      train(o, cpu);
    }
    if (*c_compare) compare(o, cpu);
    if (*c_eval) eval(o, cpu);
    if (*c_sample) sample(o, cpu);
    if (*c_compress) compress_checkpoint(o, cpu);
    if (*c_inspect) print_matrices(inspect(*load(o, cpu, false), cpu));
    if (*c_rules)
      for (const auto& name : rules().names()) {
        std::printf("%s  (lr %g)  state %s\n", name.c_str(), default_rate(name), state_cost(name).c_str());
        for (const auto& s : rules().settings(name)) std::printf("    %s = %s\n", s.name.c_str(), s.value.c_str());
      }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "small_gpt: %s\n", e.what());
    return 1;
  }
  return 0;
}
