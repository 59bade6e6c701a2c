#!/usr/bin/env python3
"""layers_test.py INCLUDE_DIR: holds every #include of the library against the layers in docs/design.md, "Layers", and looks
for rules that the library matopt::compiled does not have."""
import os
import re
import sys

# layer -> (layers it may include, libraries it may include)
LAYERS = {
    "core": ({"core"}, set()),
    "policy": ({"core", "policy"}, set()),
    "rule": ({"core", "policy", "rule", "compiled"}, set()),
    "published": ({"core", "policy", "rule", "published"}, set()),
    "compiled": ({"core", "policy", "rule", "eigen"}, set()),
    "simd": ({"core", "simd"}, {"hwy", "cpuid", "sys", "unistd"}),
    "eigen": ({"core", "eigen", "simd"}, {"Eigen", "pthread"}),
    "cuda": ({"core", "cuda"}, {"cuda", "cub", "thrust", "cublas", "cublasLt", "cusolverDn", "cusolver", "nv"}),
    "compress": ({"core", "compress"}, set()),
    "metrics": ({"core", "metrics"}, set()),
    "adapters": ({"core", "policy", "rule", "published", "eigen", "cuda", "adapters"}, {"ATen", "c10"}),
    "io": ({"core", "policy", "rule", "io"}, {"nlohmann", "fcntl", "unistd", "sys"}),  # a file is flushed and renamed by POSIX calls
}
RULE = {"rule.hpp", "optimizer.hpp", "param_groups.hpp"}
IO = {"state_io.hpp", "tensor_file.hpp", "npy.hpp"}


def layer_of(path):
    parts = path.split("/")
    if parts[0] == "engine":
        return "rule"
    if len(parts) > 1:
        return parts[0] if parts[0] in LAYERS else None
    if path == "version.hpp":
        return "core"
    if path in RULE:
        return "rule"
    if path in IO:
        return "io"
    if path in ("eigen.hpp", "cuda.cuh"):
        return path[:-4]
    return "published"


# momentum is what every method calls the one coefficient that its policies keep as beta
SETTINGS = {("momentum", "beta")}


def misnamed_settings(path, text):
    """A setting has one name: by text it is that of its member, if need be behind the name of what it belongs to."""
    return [f"{path}: setting \"{name}\" is the member {member}"
            for name, member in re.findall(r'visit\("(\w+)", self\.(\w+)', text)
            if name != member and not name.endswith("_" + member) and (name, member) not in SETTINGS]


def rules_not_compiled(texts):
    """A rule with a name is in the library matopt::compiled, or is another name of one that is."""
    everything = "\n".join(texts.values())
    compiled = set(re.findall(r"^MATOPT_COMPILED_RULE\((\w+)\)$", everything, re.M))
    aliases = dict(re.findall(r"^using (\w+) = (\w+);$", everything, re.M))
    named = re.findall(r"add<(\w+)>\(\"", texts.get("published_rules.hpp", ""))
    missing = [f"{rule}: its header does not say MATOPT_COMPILED_RULE({rule})"
               for rule in named if rule not in compiled and aliases.get(rule) not in compiled]
    return missing if named else ["published_rules.hpp names no rule"]


def reaches(path, goal, included):
    seen, waiting = set(), [path]
    while waiting:
        at = waiting.pop()
        if at == goal:
            return True
        if at not in seen:
            seen.add(at)
            waiting += included.get(at, [])
    return False


def main(include):
    root = os.path.join(include, "matopt")
    errors, seen, included, texts = [], 0, {}, {}
    for folder, _, names in sorted(os.walk(root)):
        for name in sorted(n for n in names if n.endswith((".hpp", ".cuh"))):
            path = os.path.relpath(os.path.join(folder, name), root)
            layer = layer_of(path)
            if layer is None:
                errors.append(f"{path}: no layer is known for this folder")
                continue
            allowed, libraries = LAYERS[layer]
            text = open(os.path.join(folder, name)).read()
            included[path], texts[path] = [], text
            if "// SPDX-License-Identifier: MIT\n" not in text:
                errors.append(f"{path}: no SPDX line")
            if not re.search(r"^#pragma once$", text, re.M):
                errors.append(f"{path}: no #pragma once")
            if re.search(r"^namespace matopt\b", text, re.M):
                errors.append(f"{path}: opens namespace matopt; with the version in it, it is MATOPT_NAMESPACE")
            for kind, target in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', text, re.M):
                seen += 1
                if kind == '"':
                    other = os.path.normpath(os.path.join(os.path.dirname(path), target))
                    included[path].append(other)
                    if not os.path.exists(os.path.join(root, other)):
                        errors.append(f"{path}: includes \"{target}\", which is not there")
                    elif layer_of(other) not in allowed:
                        errors.append(f"{path} ({layer}) includes {other} ({layer_of(other)})")
                elif target.startswith("matopt/"):
                    errors.append(f"{path}: includes <{target}>; inside the library includes are relative")
                elif "/" in target or "." in target:  # the standard library's names have neither
                    library = re.split(r"[/._]", target)[0]
                    if library not in libraries and target not in ("sys/mman.h",):
                        errors.append(f"{path} ({layer}) includes <{target}>")
            errors += misnamed_settings(path, text)
    errors += [f"{path}: does not include version.hpp, not through another header either: MATOPT_NAMESPACE is unknown"
               for path in included if not reaches(path, "version.hpp", included)]
    errors += rules_not_compiled(texts)
    if seen < 50:
        errors.append(f"only {seen} includes found: is {root} the library?")
    if errors:
        sys.exit("\n".join(errors))


if __name__ == "__main__":
    main(sys.argv[1])
