#include "../directions.cpp"
