/* A shared library without debug information that calls back. */
void each(int count, void (*visit)(int, void *), void *with) {
    for (int i = 0; i < count; i++)
        visit(i, with);
}
