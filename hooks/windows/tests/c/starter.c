/* starter.exe [a] COMMAND LINE: starts the rest of its command line by CreateProcessW (or A) and
 * hands its exit code through. Is on no process list. */
#include <windows.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

int main(int argc, char **argv)
{
    int narrow = argc > 1 && strcmp(argv[1], "a") == 0;
    PROCESS_INFORMATION p;
    BOOL ok;
    DWORD code = 99;
    if (argc < 3) return 2;
    if (narrow) {
        STARTUPINFOA s = { .cb = sizeof s };
        char *line = strstr(GetCommandLineA(), " a ") + 3;
        ok = CreateProcessA(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &s, &p);
    } else {
        STARTUPINFOW s = { .cb = sizeof s };
        wchar_t *line = wcsstr(GetCommandLineW(), L" w ") + 3;
        ok = CreateProcessW(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &s, &p);
    }
    if (!ok) {
        printf("CreateProcess: %lu\n", GetLastError());
        return 1;
    }
    WaitForSingleObject(p.hProcess, INFINITE);
    GetExitCodeProcess(p.hProcess, &code);
    return (int)code;
}
