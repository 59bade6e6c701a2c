#include "commands.hpp"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "compression.hpp"
#include "sampling.hpp"
#include "stop_signals.hpp"
#include "text_format.hpp"
#include "trainer.hpp"

namespace small_gpt {

namespace {

void print_result(const train_result& r, int iterations) {
  if (r.end == outcome::done) {
    std::printf("done after %d steps: ", r.steps);
  } else if (r.end == outcome::stopped) {
    std::printf("stopped by %s at step %d of %d: ", stop_signals::name_of(stop_signals::received()).c_str(), r.step,
                iterations);
  } else {
    std::printf("diverged at step %d of %d: ", r.step, iterations);
  }
  if (r.validation) {
    std::printf("validation %.4f nats per token%s", r.validation->loss,
                bits_text(", %.4f bits per byte", r.validation->bits_per_byte).c_str());
    if (r.validation->step != r.step) std::printf(" at step %d", r.validation->step);
  } else {
    std::printf("nothing was evaluated");
  }
  if (r.steps > 0)
    std::printf("; %.1f s, %.0f tokens/s, optimizer %.1f %% of the time", r.seconds, r.tokens_per_second,
                100 * r.optimizer_share);
  std::puts("");
}

std::unique_ptr<trained_model> load(const options& o, matopt::eigen_backend& cpu, const text_source& text) {
  return load_model(matopt::tensor_file::load(o.checkpoint), text, cpu.pool());
}

int windows(const options& o, const trained_model& m) {
  const int n = o.eval_windows.value_or(m.settings.eval_windows);
  if (n < 0) throw matopt::bad_value("--eval-windows", std::to_string(n), ">= 0 (0: the whole validation text)");
  return n;
}

// A text that nobody can read is not drawn to its end.
void show(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw matopt::bad_file(std::string("cannot write the output: ") + std::strerror(errno));
}

}  // namespace

void note_idle_settings(const run_settings& s, const std::set<std::string>& given) {
  for (const std::string& line : without_effect(s, given)) std::fprintf(stderr, "note: %s\n", line.c_str());
}

exit_status train(const options& o, matopt::eigen_backend& cpu) {
  std::string out = o.out;
  if (!o.resume.empty() && !o.out_given) out = std::filesystem::path(o.resume).parent_path().string();
  if (out.empty() && !o.out_given) out = ".";
  run_folder folder(out, o.force ? existing_run::replace : existing_run::refuse);
  trainer t = !o.branch.empty()   ? trainer(trainer::branch{o.branch, o.run}, cpu, std::move(folder))
              : !o.resume.empty() ? trainer(o.resume, o.data, cpu, std::move(folder))
                                  : trainer(o.run, cpu, std::move(folder), o.given);
  const run_settings& s = t.model().settings;
  note_idle_settings(s, o.given);
  if (!o.branch.empty() && o.given.contains("warmup") && s.warmup > 0 && s.warmup <= t.step())
    std::fprintf(stderr, "note: --warmup has no effect: the checkpoint is of step %d, after its end\n", t.step());
  std::printf("%s", t.device().table().c_str());
  std::printf("optimizer memory: state %zu bytes, scratch %zu bytes\n", t.device().state_bytes(),
              t.device().scratch_bytes());
  const train_result r = t.run();
  print_result(r, s.iterations);
  const std::string checkpoint = t.checkpoint_path();
  if (r.end == outcome::diverged) {
    std::string kept = "no checkpoint was written";
    if (r.saved)
      kept = "\"" + checkpoint + "\" holds step " + std::to_string(*r.saved) + ", the last good checkpoint";
    else if (std::filesystem::exists(checkpoint))
      kept = "\"" + checkpoint + "\" is as it was before";
    std::fprintf(stderr, "small_gpt: the training diverged: %s; %s\n", r.why.c_str(), kept.c_str());
    return exit_status::diverged;
  }
  std::printf("checkpoint: %s\n", checkpoint.c_str());
  if (r.end == outcome::done) return exit_status::done;
  std::printf("to continue: small_gpt train --resume %s\n", shell_word(checkpoint).c_str());
  return stopped_by(stop_signals::received());
}

exit_status evaluate(const options& o, matopt::eigen_backend& cpu) {
  const auto m = load(o, cpu, text_source::named(o.data));
  const double loss = m->validation_loss(cpu.pool(), windows(o, *m));
  std::printf("validation %.6f nats per token%s\n", loss,
              bits_text(", %.6f bits per byte", m->text().validation_bits_per_byte(loss)).c_str());
  if (std::isfinite(loss)) return exit_status::done;
  std::fprintf(stderr, "small_gpt: the loss is not finite: this is a checkpoint of a training that diverged\n");
  return exit_status::diverged;
}

exit_status sample(const options& o, matopt::eigen_backend& cpu) {
  if (o.length < 0) throw matopt::bad_value("--length", std::to_string(o.length), ">= 0");
  const sampling_config how{o.temperature, o.top_k};
  how.validate();
  const auto m = load(o, cpu, text_source::none());
  const auto prompt = m->words.encode(o.prompt);
  show(o.prompt);
  generate(m->model, cpu.pool(), prompt, static_cast<std::size_t>(o.length), how, o.sample_seed,
           [&](std::int32_t token) { show(m->words.decode(std::span(&token, 1))); });
  show("\n");
  return exit_status::done;
}

exit_status compress(const options& o, matopt::eigen_backend& cpu) {
  const method how = method_named(o.method);
  if (o.keep.empty()) throw matopt::bad_value("--keep", "empty", "one ratio or more in (0, 1]");
  for (const double k : o.keep) matopt::rank_for(k, 1, 1);
  calibration::check(o.calibration);
  if (!storage::legal(o.bits)) throw matopt::bad_value("--bits", std::to_string(o.bits), storage::legal_bits);
  if (o.entropy && o.bits > 8)
    throw matopt::bad_value("--entropy with --bits", std::to_string(o.bits), "8 or 4: whole numbers are coded");
  if (!o.save.empty()) {
    if (o.keep.size() != 1)
      throw matopt::bad_value("--keep", std::to_string(o.keep.size()) + " ratios", "one, with --save");
    require_output("--save", o.save, o.checkpoint);
  }
  const auto m = load(o, cpu, text_source::named(o.data));
  const loss_of loss = on_processor(*m, cpu, windows(o, *m));
  const calibration c = calibration::of(*m, cpu, o.calibration);
  const storage way{o.bits, o.entropy};
  std::printf("%-6s %12s %12s %10s %10s\n", "keep", "parameters", "bytes", "loss", "ridge");
  const auto results = compress(*m, cpu, c, how, o.keep, loss, {way}).front();
  matopt::index_t parameters = 0;
  for (const auto& p : m->model.parameters()) parameters += p.rows * p.cols;
  const stored_model dense = after_round_trip(*m, cpu, {}, way, loss);
  std::printf("%-6s %12td %12ju %10.4f\n", "dense", parameters, dense.bytes, dense.loss);
  for (std::size_t i = 0; i < o.keep.size(); ++i) {
    const compressed_model& r = results[i];
    std::printf("%-6g %12td %12ju %10.4f %10.1e\n", o.keep[i], r.parameters, r.stored.bytes, r.stored.loss, r.ridge);
  }
  if (!o.save.empty()) save_compressed(*m, results.front(), o.save, way);
  return exit_status::done;
}

exit_status inspect(const options& o, matopt::eigen_backend& cpu) {
  const auto m = load(o, cpu, text_source::none());
  std::printf("%-28s %10s %9s %9s %9s %9s %9s %9s %9s %9s\n", "matrix", "shape", "spectral", "stable", "effective",
              "least row", "most row", "coherence", "rate nu", "rate");
  for (const auto& r : inspect(*m, cpu))
    std::printf("%-28s %5td x%4td %9.3f %9.2f %9.2f %9.3f %9.3f %9.3f %9.3f %9.4f\n", r.name.c_str(), r.rows, r.cols,
                r.spectral_norm, r.stable_rank, r.effective_rank, r.least_row, r.greatest_row, r.coherence,
                r.rate.shape, r.rate.rate);
  return exit_status::done;
}

exit_status list_rules() {
  for (const auto& name : rules().names()) {
    std::printf("%s  (lr %g)  state %s\n", name.c_str(), default_rate(name), state_cost(name).c_str());
    for (const auto& s : rules().settings(name)) std::printf("    %s = %s\n", s.name.c_str(), s.value.c_str());
  }
  return exit_status::done;
}

}  // namespace small_gpt
