#include "../case.cpp"
