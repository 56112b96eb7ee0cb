# homes prints every home folder there is.
homes() {
	{
		awk -F: '$6 ~ "^/." { print $6 }' /etc/passwd
		for dir in /root /home/*; do echo "$dir"; done
	} | sort -u | while read -r dir; do
		if [ -d "$dir" ]; then echo "$dir"; fi
	done
}
