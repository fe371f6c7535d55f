/* starter.exe MODE COMMAND LINE: runs the command line in a child process and returns the exit code
 * of the child. starter.exe is not on the default process list of the tests.
 *
 *   a, w       uses CreateProcessA or CreateProcessW
 *   suspended  uses CREATE_SUSPENDED, and prints the last error, whether the socket calls of the
 *              suspended child are hooked, and the suspend count of the child
 *   repeat     starts a child for each line on standard input, and returns 0 */
#include <winsock2.h>
#include <windows.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

static PROCESS_INFORMATION child;

static int wait_for_exit(BOOL created)
{
    DWORD exit_code = 99;
    if (!created) {
        printf("CreateProcess: %lu\n", GetLastError());
        return 1;
    }
    WaitForSingleObject(child.hProcess, INFINITE);
    GetExitCodeProcess(child.hProcess, &exit_code);
    return (int)exit_code;
}

/* Returns whether the code of bind differs between the child and this process. System DLLs have the
 * same address in all processes, so bind has the same address in the child. */
static int is_bind_patched(void)
{
    const char *bind_address = (const char *)GetProcAddress(LoadLibraryA("ws2_32.dll"), "bind");
    char code[8];
    SIZE_T bytes_read;
    return ReadProcessMemory(child.hProcess, bind_address, code, sizeof code, &bytes_read)
           && memcmp(bind_address, code, sizeof code) != 0;
}

int main(int argc, char **argv)
{
    STARTUPINFOW startup = { .cb = sizeof startup };
    char input[16];
    if (argc < 3) return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (strcmp(argv[1], "a") == 0) {
        STARTUPINFOA startup_a = { .cb = sizeof startup_a };
        char *command_line = strstr(GetCommandLineA(), " a ") + 3;
        return wait_for_exit(CreateProcessA(NULL, command_line, NULL, NULL, TRUE, 0, NULL, NULL,
                                            &startup_a, &child));
    }
    wchar_t mode[16];
    swprintf(mode, 16, L" %hs ", argv[1]);
    wchar_t *command_line = wcsstr(GetCommandLineW(), mode) + wcslen(mode);
    if (strcmp(argv[1], "w") == 0)
        return wait_for_exit(
            CreateProcessW(NULL, command_line, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &child));
    if (strcmp(argv[1], "suspended") == 0) {
        SetLastError(4242);
        BOOL created = CreateProcessW(NULL, command_line, NULL, NULL, TRUE, CREATE_SUSPENDED, NULL,
                                      NULL, &startup, &child);
        DWORD error = GetLastError();
        printf("error %lu, hooked %d\n", error, is_bind_patched());
        DWORD suspend_count = ResumeThread(child.hThread);
        int exit_code = wait_for_exit(created);
        printf("suspended %lu\n", suspend_count);
        return exit_code;
    }
    printf("ready\n");
    while (fgets(input, sizeof input, stdin)) {
        wchar_t writable_line[1024]; /* CreateProcessW may write to its argument */
        wcsncpy(writable_line, command_line, 1023);
        int exit_code = wait_for_exit(
            CreateProcessW(NULL, writable_line, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &child));
        if (exit_code) printf("exit code %d\n", exit_code);
        printf("ready\n");
    }
    return 0;
}
