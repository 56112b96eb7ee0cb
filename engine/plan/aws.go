package plan

import (
	"encoding/json"
	"fmt"

	"github.com/gildhq/gild/engine/spec"
)

// launchParts adds what an EC2 instance is launched with to the key of its first state.
// Types, zones and networks aren't among it: they decide where it runs, not what it is.
func launchParts(parts map[string]string, a *spec.AWSBuilder) {
	parts["region"] = a.Region
	if a.Instance.UserData != "" {
		parts["user-data"] = digest([]byte(a.Instance.UserData))
	}
	for i, v := range append([]spec.AWSVolume{a.Volume}, a.Volumes...) {
		if text := volumeText(v); text != "" {
			parts[fmt.Sprintf("volume %d", i)] = text
		}
	}
}

// volumeText is what of a volume gets into the image; empty for a root volume as the base has it.
func volumeText(v spec.AWSVolume) string {
	if v.Device == "" && v.Size == 0 && v.Encrypted == nil {
		return ""
	}
	text := fmt.Sprintf("%s %d %s", v.Device, v.Size, v.KMSKey)
	if v.Encrypted != nil {
		text += fmt.Sprintf(" encrypted=%v", *v.Encrypted)
	}
	return text
}

// registerParts adds the AMI's own properties to its key.
func registerParts(parts map[string]string, a *spec.AWSBuilder) {
	// A struct of plain values always has a JSON form.
	text, _ := json.Marshal(a.Image)
	parts["ami"] = string(text)
}
