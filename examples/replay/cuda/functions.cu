#include "../functions.cpp"
