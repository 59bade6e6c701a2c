#include "../rules_baselines.cpp"
