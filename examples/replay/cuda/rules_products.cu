#include "../rules_products.cpp"
