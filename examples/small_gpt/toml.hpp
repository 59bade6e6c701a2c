// TOML files as JSON, so that one library of values serves settings from both.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace small_gpt {

// Throws bad_file with the place of what is wrong; or if the program was built without toml++.
nlohmann::json read_toml(const std::string& path);

}  // namespace small_gpt
