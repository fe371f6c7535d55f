/* A program that does nothing but be there, for those who look at it: in forms that a hook can't
 * reach, and with its environment written over. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef GO
/* What Go's linker marks its programs with. */
__attribute__((section(".go.buildinfo"), used)) static const char mark[32] = "\xff Go buildinf:";
#endif

extern char **environ;

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "titled") == 0) {
        /* As servers do that show their state in the list of processes. */
        for (char **variable = environ; *variable; variable++)
            memset(*variable, variable == environ ? 't' : 0, strlen(*variable));
    }
    printf("ready\n");
    fflush(stdout);
    pause();
    return 0;
}
