#include "../rules_bases.cpp"
