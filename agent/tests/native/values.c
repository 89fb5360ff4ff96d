/* Values of C that the program knows itself: it says each one as `mark TAB path TAB text`, right before its mark. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    int x;
    double y;
} point;
enum color { RED, GREEN = 5, BLUE = -1 };
enum access { READ = 1, WRITE = 2, EXECUTE = 4 };
struct packed {
    unsigned ready : 1;
    int delta : 5;
    unsigned long big : 40;
    enum color color : 4;
    unsigned char tail;
};
union number {
    int32_t whole;
    float real;
    uint8_t bytes[4];
};
struct nested {
    point at;
    struct {
        short a, b;
    };
    char name[8];
    const char *title;
    struct nested *next;
    char full[4];
};
struct blob {
    int length;
    int items[];
};
typedef int (*action)(int);
static int increment(int value) { return value + 1; }

#define SAY(mark, path, format, ...) printf(mark "\t" path "\t" format "\n", __VA_ARGS__)

/* Whatever the optimiser thinks, these may be looked at here. */
__attribute__((noinline)) static void keep(const void *what) { __asm__ volatile("" ::"r"(what) : "memory"); }

__attribute__((noinline)) static int scalars(int count, const char *text, double ratio, enum color color) {
    int8_t tiny = -7;
    uint64_t large = UINT64_MAX - (unsigned)count;
    _Bool yes = count > 1;
    enum access access = READ | EXECUTE;
    enum access none = 64;
    float half = 0.5f;
    void *nothing = NULL;
    action call = increment;
    SAY("scalars", "count", "%d", count);
    SAY("scalars", "text", "\"%s\"", text);
    SAY("scalars", "ratio", "%g", ratio);
    SAY("scalars", "color", "%s", "GREEN");
    SAY("scalars", "tiny", "%d", tiny);
    SAY("scalars", "large", "%llu", (unsigned long long)large);
    SAY("scalars", "yes", "%s", yes ? "true" : "false");
    SAY("scalars", "access", "%s", "READ|EXECUTE");
    SAY("scalars", "none", "%d", none);
    SAY("scalars", "half", "%g", half);
    SAY("scalars", "nothing", "%s", "0x0");
    SAY("scalars", "call", "%p", (void *)call);
    keep(&tiny), keep(&large), keep(&yes), keep(&access), keep(&none), keep(&half), keep(&nothing), keep(&call);
    return count + (int)ratio; // BP scalars
}
__attribute__((noinline)) static int compounds(point *where, struct nested *outer, const char *unset) {
    struct packed bits = { 1, -9, 0x123456789aUL, BLUE, 200 };
    union number number = { .real = 1.5f };
    int grid[2][3] = { { 1, 2, 3 }, { 4, 5, 6 } };
    point line[2] = { { 1, 1.5 }, { 2, 2.5 } };
    char word[12] = "hello";
    struct blob *blob = malloc(sizeof *blob + 2 * sizeof(int));
    blob->length = 2, blob->items[0] = 7, blob->items[1] = 8;
    SAY("compounds", "where.*where.x", "%d", where->x);
    SAY("compounds", "where.*where.y", "%g", where->y);
    SAY("compounds", "outer.*outer.at.x", "%d", outer->at.x);
    SAY("compounds", "outer.*outer.name", "\"%s\"", outer->name);
    SAY("compounds", "outer.*outer.title", "\"%s\"", outer->title);
    SAY("compounds", "outer.*outer.full", "\"%.4s\"", outer->full);
    SAY("compounds", "outer.*outer.<anonymous>.b", "%d", outer->b);
    SAY("compounds", "outer.*outer.next.*next.at.x", "%d", outer->next->at.x);
    SAY("compounds", "unset", "%s", unset ? unset : "0x0");
    SAY("compounds", "bits.ready", "%d", bits.ready);
    SAY("compounds", "bits.delta", "%d", bits.delta);
    SAY("compounds", "bits.big", "%lu", (unsigned long)bits.big);
    SAY("compounds", "bits.color", "%s", "BLUE");
    SAY("compounds", "bits.tail", "%d", bits.tail);
    SAY("compounds", "number.whole", "%d", number.whole);
    SAY("compounds", "number.real", "%g", number.real);
    SAY("compounds", "number.bytes.[3]", "%d", number.bytes[3]);
    SAY("compounds", "grid.[1].[2]", "%d", grid[1][2]);
    SAY("compounds", "grid.[0].[1]", "%d", grid[0][1]);
    SAY("compounds", "line.[1].x", "%d", line[1].x);
    SAY("compounds", "word", "\"%s\"", word);
    SAY("compounds", "blob.*blob.length", "%d", blob->length);
    keep(&bits), keep(&number), keep(grid), keep(line), keep(word), keep(&blob);
    return where->x + grid[1][1]; // BP compounds
}
int main(void) {
    char line[16];
    setvbuf(stdin, NULL, _IONBF, 0);
    printf("ready %d\n", getpid());
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 1;
    struct nested inner = { { 9, 9.5 }, { 1, 2 }, "inner", "the inner one", NULL, { 'f', 'u', 'l', 'l' } };
    struct nested outer = { { 3, 4.5 }, { 5, 6 }, "outer", "the \\\"outer\\\" one", &inner, { 'o', 'p', 'e', 'n' } };
    outer.title = "the outer one";
    point where = { 11, 0.25 };
    int result = scalars(3, "a text", 2.25, GREEN) + compounds(&where, &outer, NULL);
    fflush(stdout);
    return result == 0;
}
