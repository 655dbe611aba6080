// Command etcd is the etcd server as its module publishes it. Its own main package is in a module that `go build` cannot
// take as a dependency (it replaces its siblings), so this one calls the same entry.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
