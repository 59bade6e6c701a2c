#include "../rules_constraints.cpp"
