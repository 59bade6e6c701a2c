// A report on runs, from what their folders hold: report.html, one page that stands alone, report.md, report.json, and
// the plots as SVG.
#pragma once
#include <matopt/eigen.hpp>
#include <string>
#include <vector>

#include "analysis.hpp"
#include "summary.hpp"

namespace small_gpt {

// Every folder among `paths`, and below them, that holds a run. Throws if there is none.
std::vector<std::string> run_folders(const std::vector<std::string>& paths);

// Reads and analyses the runs, the best of each configuration in full. Returns the table in Markdown.
std::string write_report(const std::vector<std::string>& folders, const std::string& out, matopt::eigen_backend& cpu,
                         const analysis_options& options);

std::string table_of(const summary& s);                           // Markdown
nlohmann::json as_json(const summary& s);                         // report.json
std::string page_of(const summary& s, const std::string& plots);  // the page; plots go to that folder, too

}  // namespace small_gpt
