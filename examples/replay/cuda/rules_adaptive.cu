#include "../rules_adaptive.cpp"
