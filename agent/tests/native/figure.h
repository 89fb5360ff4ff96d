// What both units of values.cc know.
#pragma once

namespace shop {
struct Figure {
    int number = 3;
    virtual double area() const = 0;
    virtual ~Figure() {}
};
} // namespace shop
