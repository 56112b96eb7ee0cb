package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gildhq/gild/plugins/sdk"
)

// grace is how long ansible-playbook may take to stop when it is asked to.
const grace = 5 * time.Second

// play is a playbook that is ready to run.
type play struct {
	folder folder
	main   string
	config Config
}

// command is what runs a play: the program, and where it finds the machine.
type command struct {
	program        string
	address, token string
}

// findAnsible looks for the host's ansible-playbook.
func findAnsible() (string, error) {
	program, err := exec.LookPath("ansible-playbook")
	if err != nil {
		return "", errors.New("this host has no ansible-playbook; install ansible-core (on Debian: apt-get install ansible-core)")
	}
	return program, nil
}

// ansibleVersion asks the program for its version, such as "2.14.18".
func ansibleVersion(ctx context.Context, program string) (string, error) {
	f, err := makeFolder()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME=" + f.path("home"),
		"ANSIBLE_HOME=" + f.path("home"), "ANSIBLE_LOCAL_TEMP=" + f.path("tmp"), "ANSIBLE_CONFIG=" + f.path("none.cfg"),
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	if err := errors.Join(err, f.remove()); err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", program, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	_, v, ok := strings.Cut(strings.TrimSuffix(line, "]"), "[core ")
	if !ok {
		return "", fmt.Errorf("%s --version says %q, which isn't known", program, line)
	}
	return v, nil
}

// run runs the play and returns the counts of its tasks.
func (p *play) run(ctx context.Context, t *sdk.Target, c command) (counts, error) {
	env, err := p.environ(t.Env, c)
	if err != nil {
		return counts{}, err
	}
	events, tell, err := os.Pipe()
	if err != nil {
		return counts{}, err
	}
	heard := make(chan story)
	go func() {
		defer events.Close()
		heard <- listen(events, func(tasks int) { t.Progress(int64(tasks), 0, "tasks") })
	}()
	last := &tail{to: t.Log}
	cmd := exec.CommandContext(ctx, c.program, p.args()...)
	cmd.Dir = p.folder.path("project")
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = last, last
	cmd.ExtraFiles = []*os.File{tell}
	err = runGroup(cmd, tell)
	// What is left in the pipe is there already.
	if err := events.SetReadDeadline(time.Now().Add(time.Second)); err != nil && !errors.Is(err, os.ErrClosed) {
		return counts{}, err
	}
	told := <-heard
	return told.end, p.judge(ctx, told, err, last)
}

// runGroup runs a command as a process group of its own, which ends with it, with ctx and
// with this process. passed is a file that only the command keeps open.
func runGroup(cmd *exec.Cmd, passed *os.File) error {
	// The kernel sends Pdeathsig when the thread that started the command ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = grace
	err := cmd.Start()
	if closed := passed.Close(); err == nil && closed != nil {
		cmd.Cancel()
		err = closed
	}
	if cmd.Process == nil {
		return err
	}
	err = errors.Join(err, cmd.Wait())
	if killed := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); killed != nil && !errors.Is(killed, syscall.ESRCH) {
		return errors.Join(err, fmt.Errorf("end ansible's processes: %w", killed))
	}
	return err
}

func (p *play) args() []string {
	args := []string{"--inventory", p.folder.path("inventory.yaml"), "--extra-vars", "@" + p.folder.path("vars.json")}
	if len(p.config.Tags) > 0 {
		args = append(args, "--tags="+strings.Join(p.config.Tags, ","))
	}
	if len(p.config.SkipTags) > 0 {
		args = append(args, "--skip-tags="+strings.Join(p.config.SkipTags, ","))
	}
	return append(args, p.folder.path("project", p.main))
}

// environ is the whole environment of ansible-playbook: what the playbook's lookups see of
// the host, and settings that no ansible.cfg changes.
func (p *play) environ(env map[string]string, c command) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := p.folder
	vars := map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": f.path("home"), "TMPDIR": f.path("tmp"), "LC_ALL": "C.UTF-8",
		"PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1",
		helperVar: self, addressVar: c.address, tokenVar: c.token, eventsVar: "3",
		"ANSIBLE_CONFIG": f.path("ansible.cfg"), "ANSIBLE_HOME": f.path("home"), "ANSIBLE_LOCAL_TEMP": f.path("tmp"),
		"ANSIBLE_REMOTE_TEMP": remoteTemp, "ANSIBLE_REMOTE_USER": "root", "ANSIBLE_PIPELINING": "True",
		"ANSIBLE_CONNECTION_PLUGINS": f.path("python", "connection"),
		"ANSIBLE_CALLBACK_PLUGINS":   f.path("python", "callback"), "ANSIBLE_CALLBACKS_ENABLED": "gild_events",
		"ANSIBLE_COLLECTIONS_PATH": f.path("project", "collections"), "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "False",
		"ANSIBLE_LIBRARY": f.path("project", "library"), "ANSIBLE_MODULE_UTILS": f.path("project", "module_utils"),
		"ANSIBLE_ROLES_PATH":      f.path("project", "roles"),
		"ANSIBLE_STDOUT_CALLBACK": "default", "ANSIBLE_FORCE_COLOR": "False", "ANSIBLE_NOCOLOR": "True", "ANSIBLE_NOCOWS": "True",
		"ANSIBLE_FORKS": "1", "ANSIBLE_RETRY_FILES_ENABLED": "False", "ANSIBLE_LOCALHOST_WARNING": "False",
		"ANSIBLE_INVENTORY_ENABLED": "yaml", "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True", "ANSIBLE_CACHE_PLUGIN": "memory",
	}
	// Else plugins that lie about on the host would take part.
	for _, kind := range []string{"action", "become", "cache", "cliconf", "doc_fragment", "filter", "inventory", "lookup", "strategy", "test", "vars"} {
		vars["ANSIBLE_"+strings.ToUpper(kind)+"_PLUGINS"] = f.path("project", kind+"_plugins")
	}
	// By this gild finds the processes of a plugin that was killed.
	if run, ok := os.LookupEnv("GILD_PLUGIN_RUN"); ok {
		vars["GILD_PLUGIN_RUN"] = run
	}
	for name, value := range env {
		if name != vaultVar {
			vars[name] = value
		}
	}
	if _, ok := env[vaultVar]; ok {
		vars["ANSIBLE_VAULT_PASSWORD_FILE"] = f.path("vault")
	}
	list := make([]string, 0, len(vars))
	for name, value := range vars {
		list = append(list, name+"="+value)
	}
	return list, nil
}

// judge turns the end of ansible-playbook into the step's error.
func (p *play) judge(ctx context.Context, told story, err error, last *tail) error {
	project := p.folder.path("project") + string(os.PathSeparator)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil && told.end.Hosts == 0:
		return &sdk.Permanent{Err: fmt.Errorf("no play of %s ran: say hosts: all in it, or give the groups that its plays name; it said:\n%s", p.main, last)}
	case err == nil:
		return nil
	case told.failed != nil:
		at := strings.TrimPrefix(told.failed.Path, project)
		return fmt.Errorf("task %q (%s): %s", told.failed.Task, at, told.failed.Message)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("run ansible-playbook: %w", err)
	}
	return &sdk.Permanent{Err: fmt.Errorf("ansible-playbook %s: %w; it said:\n%s", p.main, err, strings.ReplaceAll(last.String(), project, ""))}
}
