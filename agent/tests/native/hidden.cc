// Another unit of values.cc, with a class of its own whose name there is a second time.
#include "figure.h"

namespace {
struct Hidden : shop::Figure {
    char letter = 'h';
    long outer = 25;
    double area() const override { return double(outer); }
};
} // namespace

double other_hidden(shop::Figure **out) {
    static Hidden only;
    *out = &only;
    return only.area();
}
