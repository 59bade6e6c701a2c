#include "../rules_directions.cpp"
