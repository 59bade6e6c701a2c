#include "../rules_estimators.cpp"
