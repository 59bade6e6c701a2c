// The command `report`.
#include <cstdio>

#include "commands.hpp"
#include "compression.hpp"
#include "report.hpp"

namespace small_gpt {

exit_status report(const options& o, matopt::eigen_backend& cpu) {
  if (o.out.empty()) throw matopt::bad_value("--out", "\"\"", "the name of a folder");
  const analysis_options how{.keep = o.keep,
                             .bits = o.stored_bits,
                             .entropy = o.entropy,
                             .calibration = o.calibration,
                             .data = o.data,
                             .compress = !o.keep.empty() && !o.no_compression,
                             .any_known = !o.keep_given};
  how.validate();
  calibration::check(o.calibration);
  const std::string table = write_report(run_folders(o.runs), o.out, cpu, how);
  std::printf("%s\nreport: %s/report.html\n", table.c_str(), o.out.c_str());
  return exit_status::done;
}

}  // namespace small_gpt
