// Command kubelet-flags lists the kubelet's own flags, sorted, a line each: the flag and the field of KubeletConfiguration
// (kubelet.config.k8s.io/v1beta1) that it sets, as `max-pods maxPods`, or `root-dir -` if it sets none. A part of a field is
// `v logging.verbosity`. It links the kubelet's options and sets one flag after the other; what has changed is the flag's field.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"sort"
	"strings"

	"github.com/spf13/pflag"

	_ "k8s.io/component-base/logs/json/register" // As the kubelet does: the flags of this format are there with it only.
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/v1beta1"
)

// Values of all forms that flags take. The first that a flag takes and that changes something tells its field.
var values = []string{
	"true", "false", "7919", "7919s", "192.0.2.1", "memory=true", "memory:7919", "memory<7919", "0:memory=7919", "memory=7919:NoSchedule",
}

func main() {
	lines, err := list()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubelet-flags:", err)
		os.Exit(1)
	}
	fmt.Println(strings.Join(lines, "\n"))
}

func list() ([]string, error) {
	var lines []string
	without := pflag.NewFlagSet("", pflag.ContinueOnError)
	options.NewKubeletFlags().AddFlags(without)
	without.VisitAll(func(flag *pflag.Flag) { lines = append(lines, flag.Name+" -") })
	_, with, err := fresh()
	if err != nil {
		return nil, err
	}
	var failed error
	with.VisitAll(func(flag *pflag.Flag) {
		field, err := fieldOf(flag.Name)
		if err != nil && failed == nil {
			failed = fmt.Errorf("--%s: %w", flag.Name, err)
		}
		lines = append(lines, flag.Name+" "+field)
	})
	sort.Strings(lines)
	return lines, failed
}

// A configuration as it is by default, and the flags that change it.
func fresh() (*config.KubeletConfiguration, *pflag.FlagSet, error) {
	configuration, err := options.NewKubeletConfiguration()
	if err != nil {
		return nil, nil, err
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SetOutput(io.Discard) // Nearly all of them are deprecated, and say so when they are set.
	options.AddKubeletConfigFlags(flags, configuration)
	return configuration, flags, nil
}

func fieldOf(flag string) (string, error) {
	for _, value := range values {
		configuration, flags, err := fresh()
		if err != nil {
			return "", err
		}
		before, err := published(configuration)
		if err != nil {
			return "", err
		}
		if flags.Set(flag, value) != nil {
			continue
		}
		after, err := published(configuration)
		if err != nil {
			return "", err
		}
		switch paths := changed("", before, after); len(paths) {
		case 0:
		case 1:
			return paths[0], nil
		default:
			return "", fmt.Errorf("the value %q changes %s", value, strings.Join(paths, " "))
		}
	}
	return "", fmt.Errorf("none of the values that are tried changes the configuration")
}

// A configuration as files have it.
func published(configuration *config.KubeletConfiguration) (reflect.Value, error) {
	scheme, _, err := scheme.NewSchemeAndCodecs()
	if err != nil {
		return reflect.Value{}, err
	}
	// A copy: what is converted may share maps with its source.
	object, err := scheme.ConvertToVersion(configuration.DeepCopy(), v1beta1.SchemeGroupVersion)
	return reflect.ValueOf(object), err
}

// Paths of JSON names where two values of one type differ. Maps, lists and whatever writes its JSON itself are taken as a whole.
func changed(path string, before, after reflect.Value) []string {
	if reflect.DeepEqual(before.Interface(), after.Interface()) {
		return nil
	}
	if before.Kind() == reflect.Pointer && !before.IsNil() && !after.IsNil() {
		return changed(path, before.Elem(), after.Elem())
	}
	if _, whole := before.Interface().(json.Marshaler); whole || before.Kind() != reflect.Struct {
		return []string{path}
	}
	var paths []string
	for i := range before.NumField() {
		name, _, _ := strings.Cut(before.Type().Field(i).Tag.Get("json"), ",")
		below := strings.Trim(path+"."+name, ".") // Inlined fields have no name.
		paths = append(paths, changed(below, before.Field(i), after.Field(i))...)
	}
	return paths
}
