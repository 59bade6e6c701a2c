// rule_family.cpp on the GPU.
#include "rule_family.cpp"
