#!/usr/bin/env bash
# The tutorial "Maintain a Secure Connection with UCL" as a careful person writes it down: openssl and curl, nothing else.
#
#   tutorial.sh FOLDER URL [KEY]
#
# FOLDER holds identity.pem (key and chain, the leaf first) and server-ca.pem; URL is the certificate-secured Connector
# URL. With KEY, a file, no key is made: so the benchmark measures all but that. Subjects with a comma, a slash or a
# quotation mark within a value are not provided for.
set -euo pipefail
umask 077
cd "$1"
url=$2

call() { # IDENTITY, the query on standard input
  curl --silent --show-error --fail --max-time 60 --cacert server-ca.pem --cert "$1" \
    --header 'Content-Type: application/json' --data-binary @- "$url"
}

find() { # NAME ANSWER: the text that the answer has under this name
  [[ $2 =~ \"$1\":\"([^\"]+)\" ]] || { echo "UCL's answer has no $1" >&2; exit 1; }
  found=${BASH_REMATCH[1]}
}

# Step 1: ask what to ask for.
configuration='{"query":"query { result: configuration { certificateSigningRequestInfo { subject keyAlgorithm } managementPlaneInfo { directorURL certificateSecuredConnectorURL } } }"}'
answer=$(call identity.pem <<< "$configuration")
find subject "$answer"
subject=$found

# Step 2: key and CSR. openssl takes the subject with slashes.
rm -rf new
mkdir new
if [[ ${3-} ]]; then
  cp "$3" new/key.pem
else
  openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out new/key.pem
fi
openssl req -new -sha256 -key new/key.pem -subj "/${subject//,//}" -out new/csr.pem

# Step 3: have it signed. The base64 has to stand on one line.
csr=$(openssl base64 -A -in new/csr.pem)
answer=$(call identity.pem <<< "{\"query\":\"mutation { result: signCertificateSigningRequest(csr: \\\"$csr\\\") { certificateChain caCertificate clientCertificate } }\"}")

# Step 4: decode, and check: is the certificate of the CA that came with it, valid by now, and for our key?
find certificateChain "$answer"
openssl base64 -d -A -out new/chain.pem <<< "$found"
find caCertificate "$answer"
openssl base64 -d -A -out new/ca.pem <<< "$found"
openssl verify -purpose sslclient -CAfile new/ca.pem new/chain.pem > new/verified
[[ $(openssl x509 -in new/chain.pem -noout -pubkey) == "$(openssl pkey -in new/key.pem -pubout)" ]]

# The new certificate has to work before it takes the place of the old one, which is kept.
cat new/key.pem new/chain.pem > new/identity.pem
answer=$(call new/identity.pem <<< "$configuration")
find subject "$answer"
ln -f identity.pem identity.before.pem
mv new/identity.pem identity.pem
