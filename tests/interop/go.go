// A receiver and a sender in Go, in the words of DT's documentation. One JSON task on standard input, one answer out.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/golang-jwt/jwt"
)

// Task asks to verify Token, or to sign where there is none: by the secret, else by the key in PEM.
type Task struct {
	Body, Token, Secret, Key string
	Algorithm                string
	Header                   map[string]interface{}
	Claims                   jwt.MapClaims
}

func checksum(body string) string {
	digest := sha256.Sum256([]byte(body))
	return hex.EncodeToString(digest[:])
}

// verify tells whether the token is signed as it should be, is not expired and belongs to the body.
func verify(task Task) bool {
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(task.Token, claims, func(token *jwt.Token) (interface{}, error) {
		switch token.Method.(type) {
		case *jwt.SigningMethodHMAC:
			if task.Secret != "" {
				return []byte(task.Secret), nil
			}
		case *jwt.SigningMethodECDSA:
			if task.Key != "" {
				return jwt.ParseECPublicKeyFromPEM([]byte(task.Key))
			}
		}
		return nil, fmt.Errorf("unexpected algorithm %v", token.Header["alg"])
	})
	return err == nil && claims["checksum_sha256"] == checksum(task.Body)
}

func sign(task Task) (string, error) {
	claims := jwt.MapClaims{
		"checksum_sha256": checksum(task.Body),
		"iat":             time.Now().Unix(),
		"exp":             time.Now().Add(time.Hour).Unix(),
	}
	for name, value := range task.Claims {
		claims[name] = value
	}
	token := jwt.NewWithClaims(jwt.GetSigningMethod(task.Algorithm), claims)
	for name, value := range task.Header {
		token.Header[name] = value
	}
	if task.Secret != "" {
		return token.SignedString([]byte(task.Secret))
	}
	key, err := jwt.ParseECPrivateKeyFromPEM([]byte(task.Key))
	if err != nil {
		return "", err
	}
	return token.SignedString(key)
}

func main() {
	var task Task
	if err := json.NewDecoder(os.Stdin).Decode(&task); err != nil {
		panic(err)
	}
	var answer interface{} = task.Token != "" && verify(task)
	if task.Token == "" {
		token, err := sign(task)
		if err != nil {
			panic(err)
		}
		answer = token
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		panic(err)
	}
}
