#include "../rules_normalized.cpp"
