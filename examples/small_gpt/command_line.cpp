#include "command_line.hpp"

#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <matopt/version.hpp>
#include <new>
#include <set>
#include <type_traits>

#include "commands.hpp"
#include "rules.hpp"
#include "text_format.hpp"
#include "trained_model.hpp"

namespace small_gpt {

namespace {

// A number as people write it, and one that fits: CLI11 takes nothing for 0, reads 010 as 8 and 0x10 as 16, and "-1" or
// 2^64 as the largest number that has no sign.
std::string fault_of_number(const std::string& type, const std::string& text) {
  const auto wrong = [&](const char* legal) { return '"' + text + "\" is not legal; legal: " + legal; };
  const char *begin = text.data(), *end = begin + text.size();
  if (type == "FLOAT") {
    double x = 0;
    const auto [at, error] = std::from_chars(begin + text.starts_with('+'), end, x);
    return at != end || error == std::errc::invalid_argument ? wrong("a number") : std::string();
  }
  const bool digits =
      !text.empty() && text.find_first_not_of("0123456789", text.starts_with('-')) == text.npos && text.back() != '-';
  if (!digits || (text.size() > 1 && text.find_first_of('0') == static_cast<std::size_t>(text.starts_with('-'))))
    return wrong("a whole number, without leading zeros");
  if (type == "INT") {
    int n = 0;
    return std::from_chars(begin, end, n).ec == std::errc() ? std::string() : wrong("-2147483648 to 2147483647");
  }
  std::uint64_t n = 0;
  return std::from_chars(begin, end, n).ec == std::errc() ? std::string() : wrong("0 to 18446744073709551615");
}

// An option whose value is a list with commas between its entries. CLI11's own lists drop entries that are empty.
template <class T>
CLI::Option* add_list(CLI::App& c, const char* name, std::vector<T>& into, const char* what) {
  constexpr bool text = std::is_same_v<T, std::string>, whole = std::is_integral_v<T>;
  const auto entries = [](const std::string& list, auto&& use) {
    for (std::size_t at = 0, comma = 0; comma < list.size(); at = comma + 1) {
      comma = std::min(list.find(',', at), list.size());
      use(list.substr(at, comma - at));
    }
  };
  const auto fault = [entries](const std::string& list) {
    std::string found = list.empty() ? "\"\" is empty; legal: one entry or more" : "";
    entries(list, [&](const std::string& entry) {
      if (!found.empty()) return;
      if (entry.empty())
        found = '"' + list + "\" has an empty entry; legal: " +
                (text    ? "names"
                 : whole ? "whole numbers"
                         : "numbers") +
                " with a comma between each two";
      else if (!text)
        found = fault_of_number(whole ? "INT" : "FLOAT", entry);
    });
    return found;
  };
  const auto take = [entries, &into](const std::vector<std::string>& lists) {
    into.clear();
    for (const std::string& list : lists)
      entries(list, [&](std::string entry) {
        if constexpr (text)
          into.push_back(std::move(entry));
        else
          into.push_back(static_cast<T>(matopt::detail::number("", entry)));
      });
  };
  std::string defaults;
  for (const T& x : into) {
    if constexpr (text)
      defaults += (defaults.empty() ? "" : ",") + x;
    else
      defaults += (defaults.empty() ? "" : ",") + matopt::detail::text(static_cast<double>(x));
  }
  return c.add_option_function<std::vector<std::string>>(name, take, what)
      ->type_name(text    ? "TEXT,..."
                  : whole ? "INT,..."
                          : "FLOAT,...")
      ->default_str(defaults)
      ->check(fault);
}

void check_numbers(CLI::App& app) {
  for (CLI::Option* option : app.get_options())
    if (const std::string type = option->get_type_name(); type == "INT" || type == "UINT" || type == "FLOAT")
      option->check([type](const std::string& text) { return fault_of_number(type, text); });
}

// Settings "key=value" of `old`, but for those that `given` names.
std::vector<std::string> replaced(const std::vector<std::string>& old, const std::vector<std::string>& given) {
  std::set<std::string> names;
  for (const matopt::setting& s : parse_settings(given)) names.emplace(matopt::setting_name(s.name));
  std::vector<std::string> all;
  for (const std::string& text : old)
    if (!names.contains(std::string(matopt::setting_name(std::string_view(text).substr(0, text.find('='))))))
      all.push_back(text);
  all.insert(all.end(), given.begin(), given.end());
  return all;
}

void add_training_options(CLI::App& c, run_settings& s) {
  c.add_option("--vocabulary", s.vocabulary, "character, byte, or pairs of bytes")->capture_default_str();
  c.add_option("--vocabulary-size", s.vocabulary_size, "tokens, of pairs")->capture_default_str();
  c.add_option("--train-fraction", s.train_fraction, "part of the text, from its start, that trains")
      ->capture_default_str();
  c.add_option("--arch", s.architecture, "modern or nanogpt")->capture_default_str();
  c.add_option("--layers", s.layers)->capture_default_str();
  c.add_option("--heads", s.heads)->capture_default_str();
  c.add_option("--width", s.width)->capture_default_str();
  c.add_option("--context", s.context, "tokens a prediction may see")->capture_default_str();
  c.add_option("--batch", s.batch, "sequences per step")->capture_default_str();
  c.add_option("--iterations", s.iterations, "steps")->capture_default_str();
  c.add_option("--other-lr", s.other_lr,
               "AdamW's rate for everything but hidden matrices; 0: 0.003, or the rule's own rate if that is adamw");
  c.add_option("--set-other", s.set_other, "key=value, a setting of that AdamW");
  c.add_option("--schedule", s.schedule, "wsd, cosine or constant")->capture_default_str();
  c.add_option("--warmup", s.warmup, "steps; -1: a fiftieth of the training")->capture_default_str();
  c.add_option("--decay-fraction", s.decay_fraction, "wsd: last part of the training, in which the rate falls")
      ->capture_default_str();
  c.add_option("--lr-floor", s.lr_floor, "the rate's end as a fraction")->capture_default_str();
  c.add_option("--clip", s.clip, "bound of the global gradient norm; 0: none")->capture_default_str();
  c.add_option("--qk-clip", s.qk_clip,
               "with --arch nanogpt: heads whose largest logit of attention in a step is above this have their rows of "
               "queries and keys scaled down after the step (QK-clip); 0: none")
      ->capture_default_str();
  c.add_option("--seed", s.seed)->capture_default_str();
  c.add_option("--shards", s.shards, "parts of the batch that are added in fixed order")->capture_default_str();
  c.add_option("--eval-interval", s.eval_interval, "steps between validations")->capture_default_str();
  c.add_option("--eval-windows", s.eval_windows, "validation windows; 0: the whole validation text")
      ->capture_default_str();
  c.add_option("--checkpoint-interval", s.checkpoint_interval, "steps between checkpoints")->capture_default_str();
  c.add_option("--checkpoints", s.checkpoints, "which are kept: last, all, or thinned (fewer of the older ones)")
      ->capture_default_str();
  c.add_option("--device", s.device, "cpu, cuda or cuda:N")->capture_default_str();
  c.add_option("--precision", s.precision, "of products: float; on a GPU bf16 unless given");
  c.add_option("--micro-batch", s.micro_batch, "on a GPU: sequences that go through the model at once; 0: it chooses")
      ->capture_default_str();
  c.add_option("--measure-interval", s.measure_interval, "steps between measurements of the matrices; 0: none")
      ->capture_default_str();
}

// The name of a setting in logs and checkpoints, from that of its option.
std::string setting_of(const CLI::Option& o) {
  std::string name = o.get_name().substr(2);
  std::replace(name.begin(), name.end(), '-', '_');
  return name == "arch" ? "architecture" : name;
}

// The settings of a checkpoint, with those in their place that the command line names.
run_settings branched(const CLI::App& c, const options& o) {
  const auto file = matopt::tensor_file::load(o.branch);
  const run_settings old =
      from_checked_json(nlohmann::json::parse(metadata(file, "small_gpt.settings"), nullptr, false));
  const nlohmann::json given = to_checked_json(o.run);
  nlohmann::json all = to_checked_json(old);
  for (const auto* option : c.parse_order()) {
    const std::string name = setting_of(*option);
    for (const char* fixed : {"vocabulary", "vocabulary_size", "architecture", "layers", "heads", "width", "context",
                              "shards", "train_fraction"})
      if (name == fixed)
        throw matopt::error(option->get_name() + " cannot be changed on --branch: it is the checkpoint's");
    if (given.contains(name) && name != "data") all[name] = given[name];
  }
  run_settings s = from_checked_json(all);
  s.data = o.data;  // empty: the checkpoint's
  const auto named = [&](const char* option) { return c.get_option(option)->count() > 0; };
  s.set_other = replaced(old.set_other, o.run.set_other);
  s.set =
      s.rule == old.rule ? replaced(old.set, o.run.set) : o.run.set;  // what was set for one rule is nothing to another
  if (s.rule != old.rule && !named("--lr")) s.lr = 0;
  return s;
}

std::string& command_text() {
  static std::string text;
  return text;
}

// An empty name would be as if its option were not there.
void refuse_empty_names(const CLI::App& app) {
  for (const CLI::App* command : app.get_subcommands())
    for (const CLI::Option* option : command->parse_order())
      for (const char* name : {"--data", "--out", "--resume", "--branch", "--validation", "--save"})
        if (option->get_name() == name && option->results().back().empty())
          throw matopt::bad_value(name, "\"\"", "the name of a file or folder");
}

// A file that this program opens must not get the number of an output that the caller closed.
void occupy_closed_outputs() {
  for (const int descriptor : {0, 1, 2})
    if (::fcntl(descriptor, F_GETFD) < 0 && errno == EBADF)
      // Standard output is opened for reading, so that what is written there fails, and is noticed.
      if (::open("/dev/null", descriptor == 2 ? O_WRONLY : O_RDONLY) < 0) return;
}

exit_status flushed(exit_status status) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
  std::fprintf(stderr, "small_gpt: cannot write the output: %s\n",
               errno != 0 ? std::strerror(errno) : "an earlier write failed");
  return status == exit_status::done ? exit_status::failed : status;
}

}  // namespace

const std::string& command_line() { return command_text(); }

int run(int argc, char** argv, const rule_book& book) {
  occupy_closed_outputs();
  if (&book != &rules()) rules() = book;
  command_text().clear();
  for (int i = 0; i < argc; ++i) command_text() += (i ? " " : "") + shell_word(argv[i]);
  options o;
  CLI::App app{"Trains a small GPT with the optimizers of matopt."};
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", "small_gpt of matopt " + std::to_string(MATOPT_VERSION_MAJOR) + "." +
                                        std::to_string(MATOPT_VERSION_MINOR) + "." +
                                        std::to_string(MATOPT_VERSION_PATCH));

  auto* c_train = app.add_subcommand("train", "train, and leave a checkpoint and a log");
  auto* train_data = c_train->add_option("--data", o.data, "text to learn from; any bytes");
  auto* c_resume = c_train->add_option("--resume", o.resume, "a checkpoint to continue, with its settings");
  auto* c_branch = c_train->add_option(
      "--branch", o.branch,
      "a checkpoint to begin with; its settings, but for those named here, as rate, rule, or length");
  auto* train_out = c_train
                        ->add_option("--out", o.out,
                                     "folder for the log and the checkpoint; with --resume, unless given: that of "
                                     "the checkpoint")
                        ->capture_default_str();
  auto* c_force = c_train->add_flag("--force", o.force, "replace a run that the folder holds");
  c_train->add_option("--rule", o.run.rule, "optimizer of the hidden matrices; `small_gpt rules` lists them")
      ->capture_default_str();
  c_train->add_option("--set", o.run.set, "key=value, a setting of the rule");
  c_train->add_option("--lr", o.run.lr, "rate of the hidden matrices; 0: the rule's own");
  add_training_options(*c_train, o.run);

  auto* c_compare = app.add_subcommand("compare", "train several rules on the same batches; write a table and a page");
  c_compare->add_option("--data", o.data, "text to learn from")->required();
  c_compare->add_option("--out", o.out, "folder for the report")->capture_default_str();
  c_compare->add_flag("--force", o.force, "replace a report that the folder holds, and its runs");
  add_list(*c_compare, "--rules", o.rules, "NAME, or NAME=RATE for another rate than the default");
  add_list(*c_compare, "--keep", o.keep, "fractions for the compressed models");
  c_compare->add_option("--calibration", o.calibration, "training sequences behind the whitening")
      ->capture_default_str();
  add_training_options(*c_compare, o.run);

  auto* c_sweep = app.add_subcommand("sweep", "train what a file asks for: rules x rates x seeds x any setting");
  c_sweep->add_option("file", o.checkpoint, "sweep.toml; examples/small_gpt/README.md says what it holds")->required();
  c_sweep->add_option("--data", o.data, "text to learn from, instead of the file's");
  auto* sweep_out = c_sweep->add_option("--out", o.out, "folder of the runs, instead of the file's");
  auto* sweep_device = c_sweep->add_option("--device", o.run.device, "cpu, cuda or cuda:N, instead of the file's");
  c_sweep->add_flag("--dry-run", o.dry_run, "only say which runs are missing, as far as that is known");

  auto* c_report = app.add_subcommand("report", "a page on runs, from their folders");
  c_report->add_option("runs", o.runs, "folders of runs, or folders that hold such")->required();
  auto* report_out = c_report->add_option("--out", o.out, "folder for the report; report unless given");
  c_report->add_option("--data", o.data, "the text, if it is not where the runs had it");
  auto* report_keep =
      add_list(*c_report, "--keep", o.keep, "fractions for the compressed models; unless given, those that a run has");
  auto* report_bits = add_list(*c_report, "--bits", o.stored_bits, "of the compressed models' elements: 32, 16, 8, 4");
  auto* report_entropy = c_report->add_flag("--entropy", o.entropy, "entropy-code what has 8 or 4 bits");
  auto* report_calibration =
      c_report->add_option("--calibration", o.calibration, "training sequences behind the compressors")
          ->capture_default_str();
  auto* report_data = c_report->get_option("--data");
  c_report->add_flag("--no-compression", o.no_compression, "leave the compressed models out")
      ->excludes(report_data, report_keep, report_bits, report_entropy, report_calibration);

  auto* c_tokenize = app.add_subcommand("tokenize", "write the tokens of a text as shards, which train --data reads");
  c_tokenize->add_option("--data", o.data, "text")->required();
  auto* tokenize_out = c_tokenize->add_option("--out", o.out, "folder for the shards")->required();
  auto* tokenize_validation =
      c_tokenize->add_option("--validation", o.validation, "another text that validates; all of --data trains then");
  c_tokenize->add_flag("--force", o.force, "replace tokens of a text that the folder holds");
  c_tokenize->add_option("--vocabulary-size", o.run.vocabulary_size, "tokens, of pairs of bytes")
      ->capture_default_str();
  c_tokenize->add_option("--train-fraction", o.run.train_fraction, "part of the text, from its start, that trains")
      ->capture_default_str()
      ->excludes(tokenize_validation);

  const auto on_checkpoint = [&](const char* name, const char* what, bool with_text) {
    auto* c = app.add_subcommand(name, what);
    c->add_option("checkpoint", o.checkpoint)->required();
    if (with_text) {
      c->add_option("--data", o.data, "another text than it was trained on");
      c->add_option("--eval-windows", o.eval_windows,
                    "validation windows; 0: the whole validation text; unless given, as many as in training");
    }
    return c;
  };
  auto* c_eval = on_checkpoint("eval", "validation loss of a checkpoint", true);
  auto* c_sample = on_checkpoint("sample", "text from a checkpoint", false);
  c_sample->add_option("--prompt", o.prompt);
  c_sample->add_option("--length", o.length, "tokens")->capture_default_str();
  c_sample->add_option("--temperature", o.temperature)->capture_default_str();
  auto* sample_top = c_sample->add_option("--top-k", o.top_k, "0: all")->capture_default_str();
  auto* sample_seed = c_sample->add_option("--seed", o.sample_seed)->capture_default_str();
  auto* c_compress = on_checkpoint("compress", "low-rank form of a checkpoint: size and loss", true);
  c_compress->add_option("--method", o.method, "whitened, svd or asvd")->capture_default_str();
  add_list(*c_compress, "--keep", o.keep, "fractions of the parameters of each hidden matrix");
  auto* compress_calibration =
      c_compress->add_option("--calibration", o.calibration, "training sequences to look at")->capture_default_str();
  c_compress
      ->add_option("--bits", o.bits, "of an element of a hidden matrix or its factors in the file: 32, 16, 8 or 4")
      ->capture_default_str();
  c_compress->add_flag("--entropy", o.entropy, "entropy-code what has 8 or 4 bits in the file");
  c_compress->add_option("--save", o.save, "write the compressed checkpoint");
  auto* c_inspect = on_checkpoint("inspect", "spectra of a checkpoint's matrices", false);
  auto* c_export = on_checkpoint("export", "the dense weights of a checkpoint, for other programs", false);
  c_export->add_option("--out", o.out, "a file; of huggingface, a folder")->required();
  c_export
      ->add_option("--format", o.format,
                   "safetensors, or huggingface (config.json and model.safetensors of GPT-2; --arch nanogpt only)")
      ->capture_default_str();
  c_export->add_flag("--force", o.force, "replace a model that the folder holds");
  auto* c_logits = on_checkpoint("logits", "the logits after each token of a text, as a safetensors file", false);
  auto* logits_text = c_logits->add_option("--text", o.text, "in the characters of the vocabulary");
  auto* logits_tokens =
      add_list(*c_logits, "--tokens", o.tokens, "numbers of tokens, instead of a text")->excludes(logits_text);
  c_logits->add_option("--out", o.out, "file")->required();
  app.add_subcommand("rules", "the rules, their settings and defaults");

  std::vector<CLI::App*> places{&app};
  for (CLI::App* command : app.get_subcommands({})) places.push_back(command);
  for (CLI::App* place : places) {
    place->add_option("--threads", o.threads, "0: one per core");
    check_numbers(*place);
  }

  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) throw CLI::RequiredError("A command");
  } catch (const CLI::ParseError& e) {
    const exit_status status = app.exit(e) == 0 ? exit_status::done : exit_status::usage;  // 0: --help
    return static_cast<int>(flushed(status));
  }
  try {
    refuse_empty_names(app);
    o.run.data = o.data;
    o.out_given = train_out->count() + sweep_out->count() + tokenize_out->count() > 0;
    if (*c_logits && logits_text->count() + logits_tokens->count() == 0)
      throw matopt::error("logits needs --text or --tokens");
    if (*c_report && report_out->count() == 0) o.out = "report";
    for (const auto* given : {report_keep, report_bits, report_entropy, report_calibration})
      o.keep_given = o.keep_given || given->count() > 0;
    if (*c_sweep && sweep_device->count() == 0) o.run.device.clear();
    const auto note_idle = [](const CLI::Option* option, bool idle, const char* beside) {
      if (idle && option->count() > 0)
        std::fprintf(stderr, "note: %s has no effect with %s\n", option->get_name().c_str(), beside);
    };
    for (const auto* option : {sample_top, sample_seed}) note_idle(option, o.temperature == 0, "--temperature 0");
    note_idle(compress_calibration, o.method == "svd", "--method svd");
    // A file that grows too large, or a training's reader that went away, is an error of the write and no end.
    std::signal(SIGXFSZ, SIG_IGN);
    if (*c_train || *c_compare || *c_sweep) std::signal(SIGPIPE, SIG_IGN);
    if (*c_train && o.resume.empty() && o.branch.empty() && train_data->count() == 0)
      throw matopt::error("train needs --data, a text to learn from, or --resume or --branch, a checkpoint");
    refuse_doubled("--set", o.run.set), refuse_doubled("--set-other", o.run.set_other);
    for (const auto* command : {c_train, c_compare})
      for (const auto* option : command->parse_order()) o.given.insert(setting_of(*option));
    if (c_branch->count() > 0) o.run = branched(*c_train, o);
    if (c_resume->count() > 0) {
      for (const auto* given : c_train->parse_order())
        if (given != c_resume && given != train_data && given != train_out && given != c_force &&
            given->get_name() != "--threads")
          throw matopt::error(given->get_name() + " cannot be changed on --resume: the checkpoint's settings continue");
    }
    matopt::eigen_backend cpu(o.threads);
    const exit_status status = *c_train      ? train(o, cpu)
                               : *c_compare  ? compare(o, cpu)
                               : *c_sweep    ? sweep(o, cpu)
                               : *c_report   ? report(o, cpu)
                               : *c_tokenize ? tokenize(o)
                               : *c_eval     ? evaluate(o, cpu)
                               : *c_sample   ? sample(o, cpu)
                               : *c_compress ? compress(o, cpu)
                               : *c_inspect  ? inspect(o, cpu)
                               : *c_export   ? export_model(o, cpu)
                               : *c_logits   ? logits(o, cpu)
                                             : list_rules();
    return static_cast<int>(flushed(status));
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "small_gpt: not enough memory\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "small_gpt: %s\n", e.what());
  }
  return static_cast<int>(exit_status::failed);
}

}  // namespace small_gpt
