/* An idle program for tests of `vipool explain`. The tests also build a static variant, and a
 * variant that `vipool explain` recognizes as a Go program. With the argument "set-title", the
 * program overwrites its environment. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef GO
/* The section that the Go linker adds to programs. */
__attribute__((section(".go.buildinfo"), used)) static const char build_info[32] =
    "\xff Go buildinf:";
#endif

extern char **environ;

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "set-title") == 0) {
        /* Some servers write their state to the process title in the same way. */
        for (char **variable = environ; *variable; variable++)
            memset(*variable, variable == environ ? 't' : 0, strlen(*variable));
    }
    printf("ready\n");
    fflush(stdout);
    pause();
    return 0;
}
