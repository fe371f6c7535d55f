/* An idle program for tests of `vipool explain`. It is also built in forms that a hook cannot
 * reach. With the argument "set-title" it overwrites its environment. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef GO
/* The mark that Go's linker leaves in its programs. */
__attribute__((section(".go.buildinfo"), used)) static const char mark[32] = "\xff Go buildinf:";
#endif

extern char **environ;

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "set-title") == 0) {
        /* As servers do that show their state in the list of processes. */
        for (char **variable = environ; *variable; variable++)
            memset(*variable, variable == environ ? 't' : 0, strlen(*variable));
    }
    printf("ready\n");
    fflush(stdout);
    pause();
    return 0;
}
