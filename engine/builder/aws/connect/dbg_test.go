package connect
import ("testing";"time";"bytes";"os";"github.com/gildhq/gild/engine/step")
func TestDbg(t *testing.T){
	f := newFakeSSM(startHost(t, hostOptions{}))
	f.hidden, f.delivery, f.throttle, f.offline, f.twice, f.undelivered = 2, 50*time.Millisecond, 9, 1, 3, 1
	switch os.Getenv("DROP") { case "hidden": f.hidden=0; case "throttle": f.throttle=0; case "twice": f.twice=0 }
	b:=time.Now()
	m := openSSM(t,f,Options{})
	t.Log("open", time.Since(b))
	for range 8 { s0,g0,a0 := f.count(); b:=time.Now(); var o bytes.Buffer; must(t, m.Exec(t.Context(), step.Cmd{Argv:[]string{"true"},Stdout:&o})); s,g,a := f.count(); t.Log(time.Since(b), s-s0, g-g0, a-a0) }
}
