/* starter.exe WAY COMMAND LINE: starts the rest of its command line and hands its exit code through.
 * Is on no process list.
 *
 *   a, w       by CreateProcessA or CreateProcessW
 *   suspended  with CREATE_SUSPENDED; says whether the program was left so, and whether its socket
 *              calls were hooked by then, before its entry point
 *   later      once for each line on standard input */
#include <winsock2.h>
#include <windows.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

static PROCESS_INFORMATION p;

static int ended(BOOL created)
{
    DWORD code = 99;
    if (!created) {
        printf("CreateProcess: %lu\n", GetLastError());
        return 1;
    }
    WaitForSingleObject(p.hProcess, INFINITE);
    GetExitCodeProcess(p.hProcess, &code);
    return (int)code;
}

/* Whether bind begins otherwise in the child than here. System DLLs are at the same address. */
static int hooked(void)
{
    const char *own = (const char *)GetProcAddress(LoadLibraryA("ws2_32.dll"), "bind");
    char theirs[8];
    SIZE_T got;
    return ReadProcessMemory(p.hProcess, own, theirs, sizeof theirs, &got)
           && memcmp(own, theirs, sizeof theirs) != 0;
}

int main(int argc, char **argv)
{
    STARTUPINFOW s = { .cb = sizeof s };
    char input[16];
    if (argc < 3) return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (strcmp(argv[1], "a") == 0) {
        STARTUPINFOA narrow = { .cb = sizeof narrow };
        char *line = strstr(GetCommandLineA(), " a ") + 3;
        return ended(CreateProcessA(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &narrow, &p));
    }
    wchar_t way[16];
    swprintf(way, 16, L" %hs ", argv[1]);
    wchar_t *line = wcsstr(GetCommandLineW(), way) + wcslen(way);
    if (strcmp(argv[1], "w") == 0)
        return ended(CreateProcessW(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &s, &p));
    if (strcmp(argv[1], "suspended") == 0) {
        SetLastError(4242);
        BOOL ok = CreateProcessW(NULL, line, NULL, NULL, TRUE, CREATE_SUSPENDED, NULL, NULL, &s, &p);
        DWORD error = GetLastError();
        printf("error %lu, hooked %d\n", error, hooked());
        DWORD count = ResumeThread(p.hThread);
        int code = ended(ok);
        printf("suspended %lu\n", count);
        return code;
    }
    printf("ready\n");
    while (fgets(input, sizeof input, stdin)) {
        wchar_t copy[1024];
        wcsncpy(copy, line, 1023);
        int code = ended(CreateProcessW(NULL, copy, NULL, NULL, TRUE, 0, NULL, NULL, &s, &p));
        if (code) printf("exit code %d\n", code);
        printf("ready\n");
    }
    return 0;
}
