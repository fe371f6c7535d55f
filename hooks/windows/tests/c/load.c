/* load.exe DLL COMMAND LINE: starts a program and loads a DLL into it, as a vendor's agent does.
 *
 * load.exe creates the process suspended, calls LoadLibraryA in a remote thread, and resumes the
 * process. It returns the exit code of the program. */
#include <windows.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    STARTUPINFOA startup = { .cb = sizeof startup };
    PROCESS_INFORMATION process;
    DWORD exit_code = 99;
    if (argc < 3) return 2;
    size_t size = strlen(argv[1]) + 1;
    char *command_line = strstr(GetCommandLineA(), argv[1]) + size;
    while (*command_line == ' ' || *command_line == '"') command_line++;
    if (!CreateProcessA(NULL, command_line, NULL, NULL, TRUE, CREATE_SUSPENDED, NULL, NULL,
                        &startup, &process)) {
        printf("CreateProcess %s: %lu\n", command_line, GetLastError());
        return 1;
    }
    void *remote_path =
        VirtualAllocEx(process.hProcess, NULL, size, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
    WriteProcessMemory(process.hProcess, remote_path, argv[1], size, NULL);
    FARPROC load_library = GetProcAddress(GetModuleHandleA("kernel32.dll"), "LoadLibraryA");
    HANDLE thread = CreateRemoteThread(
        process.hProcess, NULL, 0, (LPTHREAD_START_ROUTINE)(void *)load_library, remote_path, 0,
        NULL);
    WaitForSingleObject(thread, INFINITE);
    GetExitCodeThread(thread, &exit_code);
    if (exit_code == 0) printf("%s was not loaded\n", argv[1]);
    ResumeThread(process.hThread);
    WaitForSingleObject(process.hProcess, INFINITE);
    GetExitCodeProcess(process.hProcess, &exit_code);
    return (int)exit_code;
}
