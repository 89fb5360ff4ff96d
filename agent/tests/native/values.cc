// Values of C++ that the program knows itself: it says each one as `mark TAB path TAB text`, before its mark.
#include <array>
#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

#include "figure.h"

namespace shop {
enum class State : unsigned char { Open, Paid = 7 };
struct Item {
    std::string name;
    int quantity;
    State state;
};
struct Base {
    int id = 41;
    virtual ~Base() {}
};
struct Order : Base {
    std::vector<Item> items;
    std::optional<int> discount;
    const Item *first = nullptr;
};
template <typename T> struct Pair {
    T left, right;
};
struct Circle : Figure {
    double radius;
    std::string label;
    Circle(double radius, const char *label) : radius(radius), label(label) {}
    double area() const override { return radius * 3; }
};
// Begins with a figure that is not its first base in the source, nor the last class of the chain.
struct Plain {
    short width = 6;
};
struct Square : Plain, Figure {
    double side;
    explicit Square(double side) : side(side) {}
    double area() const override { return side * side; }
};
struct Cube : Square {
    char letter = 'c';
    explicit Cube(double side) : Square(side) {}
    double area() const override { return side * side * 6; }
};
template <typename T> struct Tagged : Circle {
    T tag;
    explicit Tagged(T tag) : Circle(0.5, "tagged"), tag(tag) {}
};
// The table of one with a virtual base is not told: it is what the pointer says.
struct Shared : virtual Figure {
    int own = 11;
    double area() const override { return 0; }
};
// Their tables are one, as where a linker has made one of equal tables: an object of either is what its pointer says.
struct Folded : Figure {
    int width = 21;
    double area() const override { return width; }
};
struct Twin : Figure {
    int height = 22;
    double area() const override;
    virtual void key(); // where it would be defined, the table would be
    ~Twin() override {}
};
} // namespace shop
asm(".globl _ZTVN4shop4TwinE\n"
    ".type _ZTVN4shop4TwinE, @object\n"
    ".size _ZTVN4shop4TwinE, 40\n"
    ".set _ZTVN4shop4TwinE, _ZTVN4shop6FoldedE\n");
namespace {
// Each unit has its own of this name.
struct Hidden : shop::Figure {
    short inner = 23;
    double area() const override { return inner; }
};
struct Tag {
    int mark = 24;
};
} // namespace
double other_hidden(shop::Figure **out);

#define SAY(mark, path, format, ...) std::printf(mark "\t" path "\t" format "\n", __VA_ARGS__)

// Whatever the optimiser thinks, these may be looked at here.
template <typename T> __attribute__((noinline)) void keep(const T &what) { asm volatile("" ::"r"(&what) : "memory"); }

__attribute__((noinline)) int texts(const std::string &reference, std::string_view view) {
    std::string small = "small", empty;
    std::string large(100, 'x');
    std::vector<std::string> words = { "one", "two", "three" };
    SAY("texts", "reference", "\"%s\"", reference.c_str());
    SAY("texts", "view", "\"%.*s\"", int(view.size()), view.data());
    SAY("texts", "small", "\"%s\"", small.c_str());
    SAY("texts", "empty", "\"%s\"", empty.c_str());
    SAY("texts", "large", "\"%s\"", large.c_str());
    SAY("texts", "words", "len: %zu, [\"one\",\"two\",\"three\"]", words.size());
    SAY("texts", "words.[2]", "\"%s\"", words[2].c_str());
    keep(small), keep(empty), keep(large), keep(words), keep(view);
    return int(reference.size()); // BP texts
}
__attribute__((noinline)) int containers() {
    std::vector<int> numbers = { 1, 2, 3 }, none;
    std::map<std::string, int> ages = { { "ann", 31 }, { "bob", 42 }, { "cid", 53 } };
    std::set<int> odd = { 5, 1, 3 };
    std::unordered_map<int, std::string> names = { { 7, "seven" } };
    std::array<short, 3> triple = { 4, 5, 6 };
    std::pair<int, double> both = { 8, 1.5 };
    std::map<int, int> nothing;
    SAY("containers", "numbers", "len: %zu, [1,2,3]", numbers.size());
    SAY("containers", "numbers.[1]", "%d", numbers[1]);
    SAY("containers", "none", "len: %zu, []", none.size());
    SAY("containers", "ages", "len: %zu, {\"ann\": 31, \"bob\": 42, \"cid\": 53}", ages.size());
    SAY("containers", "ages.[\"bob\"]", "%d", ages["bob"]);
    SAY("containers", "odd", "len: %zu, {1, 3, 5}", odd.size());
    SAY("containers", "names", "len: %zu, {7: \"seven\"}", names.size());
    SAY("containers", "triple.[2]", "%d", triple[2]);
    SAY("containers", "both.first", "%d", both.first);
    SAY("containers", "both.second", "%g", both.second);
    SAY("containers", "nothing", "len: %zu, {}", nothing.size());
    keep(numbers), keep(none), keep(ages), keep(odd), keep(names), keep(triple), keep(both), keep(nothing);
    return numbers[0]; // BP containers
}
__attribute__((noinline)) int objects(const shop::Order &order, int &counter) {
    std::optional<int> some = 5, nothing;
    std::optional<std::string> word = "there";
    std::unique_ptr<int> owned(new int(12)), empty;
    std::shared_ptr<shop::Pair<int>> shared(new shop::Pair<int>{ 1, 2 });
    std::atomic<int> atomic{ 77 };
    shop::Pair<double> halves = { 0.5, 1.5 };
    shop::State state = shop::State::Paid;
    SAY("objects", "order.*order.Base.id", "%d", order.id);
    SAY("objects", "order.*order.items.[0].name", "\"%s\"", order.items[0].name.c_str());
    SAY("objects", "order.*order.items.[1].quantity", "%d", order.items[1].quantity);
    SAY("objects", "order.*order.items.[1].state", "%s", "Paid");
    SAY("objects", "order.*order.discount", "%d", *order.discount);
    SAY("objects", "order.*order.first.*first.quantity", "%d", order.first->quantity);
    SAY("objects", "counter", "%d", counter);
    SAY("objects", "some", "%d", *some);
    SAY("objects", "nothing", "%s", nothing ? "?" : "nullopt");
    SAY("objects", "word", "\"%s\"", word->c_str());
    SAY("objects", "owned", "%d", *owned);
    SAY("objects", "empty", "%s", empty ? "?" : "0x0");
    SAY("objects", "shared.*shared.right", "%d", shared->right);
    SAY("objects", "atomic", "%d", atomic.load());
    SAY("objects", "halves.right", "%g", halves.right);
    SAY("objects", "state", "%s", "Paid");
    keep(some), keep(nothing), keep(word), keep(owned), keep(empty), keep(shared), keep(atomic), keep(halves), keep(state);
    return counter + order.id; // BP objects
}
// Objects whose classes only their tables tell.
__attribute__((noinline)) double dynamic(const shop::Figure &circle, shop::Figure *square, const shop::Shared *shared) {
    std::unique_ptr<shop::Figure> owned(new shop::Cube(2.5));
    std::shared_ptr<shop::Figure> counted(new shop::Tagged<int>(77));
    std::vector<std::unique_ptr<shop::Figure>> all;
    all.emplace_back(new shop::Circle(4.5, "last"));
    shop::Figure *nothing = nullptr;
    std::unique_ptr<shop::Figure> folded(new shop::Folded), twin(new shop::Twin), hidden(new Hidden);
    std::unique_ptr<shop::Figure> hidden_tag(new shop::Tagged<Tag>(Tag{}));
    shop::Figure *elsewhere;
    double sum = other_hidden(&elsewhere) + hidden->area();
    const shop::Circle *exact = static_cast<const shop::Circle *>(&circle);
    SAY("dynamic", "circle.*circle.radius", "%g", 1.5);
    SAY("dynamic", "circle.*circle.label", "\"%s\"", "a circle");
    SAY("dynamic", "circle.*circle.Figure.number", "%d", circle.number);
    SAY("dynamic", "square.*square.side", "%g", 3.5);
    SAY("dynamic", "square.*square.Plain.width", "%d", 6);
    SAY("dynamic", "owned.*owned.letter", "%d 'c'", 99);
    SAY("dynamic", "owned.*owned.Square.side", "%g", 2.5);
    SAY("dynamic", "counted.*counted.tag", "%d", 77);
    SAY("dynamic", "counted.*counted.Circle.label", "\"%s\"", "tagged");
    SAY("dynamic", "all.[0].*[0].label", "\"%s\"", "last");
    SAY("dynamic", "folded.*folded.number", "%d", 3);
    SAY("dynamic", "twin.*twin.number", "%d", 3);
    SAY("dynamic", "hidden.*hidden.inner", "%d", 23);
    SAY("dynamic", "hidden_tag.*hidden_tag.tag.mark", "%d", 24);
    SAY("dynamic", "elsewhere.*elsewhere.outer", "%d", 25);
    SAY("dynamic", "nothing", "%s", "0x0");
    keep(folded), keep(twin), keep(hidden), keep(hidden_tag), keep(elsewhere);
    SAY("dynamic", "exact.*exact.radius", "%g", exact->radius);
    SAY("dynamic", "shared.*shared.own", "%d", shared->own);
    keep(owned), keep(counted), keep(all), keep(nothing), keep(exact);
    return sum + circle.area() + square->area() + owned->area() + counted->area(); // BP dynamic
}
int main() {
    char line[16];
    std::printf("ready %d\n", getpid());
    std::fflush(stdout);
    if (!std::fgets(line, sizeof line, stdin))
        return 1;
    shop::Order order;
    order.items = { { "tea", 1, shop::State::Open }, { "a cup that is longer than the small ones", 2, shop::State::Paid } };
    order.discount = 15;
    order.first = &order.items[0];
    int counter = 99;
    std::string text = "by reference";
    int result = texts(text, std::string_view(text).substr(3, 3)) + containers() + objects(order, counter);
    shop::Circle circle(1.5, "a circle");
    shop::Square square(3.5);
    shop::Shared shared;
    result += int(dynamic(circle, &square, &shared));
    std::fflush(stdout);
    return result == 0;
}
