// The version of the library, for the preprocessor: MATOPT_VERSION is 10203 for 1.2.3. Every header includes this one.
// CMake reads the three numbers from here.
//
// Everything is in an inline namespace with the version in its name. matopt::muon is found as before, and the symbols
// of two versions in one program are different ones.
//
// SPDX-License-Identifier: MIT
#pragma once

#define MATOPT_VERSION_MAJOR 0
#define MATOPT_VERSION_MINOR 1
#define MATOPT_VERSION_PATCH 0
#define MATOPT_VERSION (MATOPT_VERSION_MAJOR * 10000 + MATOPT_VERSION_MINOR * 100 + MATOPT_VERSION_PATCH)
#define MATOPT_NAMESPACE matopt::inline v0_1  // the two first numbers
