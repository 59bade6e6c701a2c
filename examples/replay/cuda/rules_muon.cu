#include "../rules_muon.cpp"
